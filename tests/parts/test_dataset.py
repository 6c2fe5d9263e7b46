"""Every kind of file: handled, or refused in one line that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgss.data import dataset
from dgss.data.dataset import Dataset, read_image, read_label
from dgss.data.domains import Pair, domain
from dgss.errors import DataError
from tests.parts.standin import write_streets

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = PIXELS[..., 0]


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    read = read_image(saved(tmp_path / "a.png", Image.fromarray(GREY)))
    np.testing.assert_array_equal(read, np.stack([GREY] * 3, 2))


def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:  # mutation: convert("RGB"), which clips to 255
    deep = GREY.astype(np.uint16) * 256 + 17
    expected = np.stack([GREY] * 3, 2)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(deep))), expected)
    np.testing.assert_array_equal(read_image(deep), expected)


def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), PIXELS[..., ::-1].astype(np.uint16) * 256 + 9)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)


def test_transparent_pixels_are_black(tmp_path: Path) -> None:  # mutation: alpha dropped
    alpha = np.where(np.arange(7) < 3, 0, 255).astype(np.uint8) * np.ones((5, 1), np.uint8)
    rgba = np.dstack([PIXELS, alpha])
    expected = np.where(alpha[..., None] == 0, 0, PIXELS)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(rgba))), expected)
    np.testing.assert_array_equal(read_image(rgba), expected)
    grey = saved(tmp_path / "la.png", Image.fromarray(rgba).convert("LA"))
    assert (read_image(grey)[:, :3] == 0).all()


def test_palette_pictures_show_their_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY // 64, "P")
    picture.putpalette([9, 8, 7, 1, 2, 3, 50, 60, 70, 200, 100, 0])
    read = read_image(saved(tmp_path / "a.png", picture))
    np.testing.assert_array_equal(read, np.array([[9, 8, 7], [1, 2, 3], [50, 60, 70], [200, 100, 0]])[GREY // 64])


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr"])
def test_other_modes_come_as_rgb(mode: str) -> None:
    read = read_image(Image.fromarray(PIXELS).convert(mode))
    assert read.shape == (5, 7, 3) and read.dtype == np.uint8


def test_a_turned_photo_is_turned_back_unless_it_has_labels(tmp_path: Path) -> None:  # mutation: EXIF always or never
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif, quality=100)
    assert read_image(path).shape == (7, 5, 3)
    assert read_image(path, exif=False).shape == (5, 7, 3)
    assert read_image(Image.open(path)).shape == (7, 5, 3)
    np.testing.assert_array_equal(read_image(path), np.rot90(read_image(path, exif=False), -1))


def test_a_file_an_image_and_an_array_read_alike(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    for source in (path, str(path), Image.open(path), PIXELS, PIXELS[::-1][::-1]):
        np.testing.assert_array_equal(read_image(source), PIXELS)


def broken(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(np.tile(PIXELS, (40, 40, 1)))).read_bytes()
    png = saved(tmp_path / "whole.png", Image.fromarray(PIXELS)).read_bytes()
    contents = {"cut.jpg": whole[: len(whole) // 2], "cut.png": png[:50], "empty.png": b"", "text.png": b"no picture"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    saved(tmp_path / "float.tif", Image.fromarray(GREY.astype(np.float32)))
    reasons = {
        "cut.jpg": "truncated",
        "cut.png": "cannot be decoded",
        "empty.png": "is empty",
        "text.png": "no image",
        "float.tif": "32-bit",
        "absent.png": "there is no image",
        ".": "is a folder",
    }
    return {name: (tmp_path / name, reason) for name, reason in reasons.items()}


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    for path, reason in broken(tmp_path).values():
        with pytest.raises(DataError) as error:
            read_image(path)
        assert reason in str(error.value) and str(path) in str(error.value), error.value
        assert "\n" not in str(error.value)


def test_a_mode_without_a_way_to_rgb_is_named() -> None:
    with pytest.raises(DataError, match="mode La"):
        read_image(Image.new("La", (2, 2)))


def test_huge_pictures_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    monkeypatch.setattr(dataset, "PIXEL_LIMIT", 34)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="7x5 pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many by itself
    with pytest.raises(DataError, match=r"a\.png has too many pixels, at most 80 million are read; shrink it first"):
        read_image(path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (OSError("unrecognized data stream contents when reading image file"), "cannot be decoded: unrecognized"),
    ],
)
def test_the_system_and_the_decoder_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:  # mutation: "fetch the file again" for a file that may not be read
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=told):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="should be a path"):
        read_image(5)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        read_image("x" * 300)


def test_a_lack_of_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise MemoryError

    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    monkeypatch.setattr(Image.Image, "load", full)
    with pytest.raises(MemoryError):  # mutation: DataError, "cannot be decoded"
        read_image(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.full((4, 4, 3), np.nan, np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_odd_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError):
        read_image(array)


def label_of(tmp_path: Path, image: Image.Image) -> Pair:
    return Pair("a", tmp_path / "a.jpg", saved(tmp_path / "label.png", image))


def test_a_stray_label_is_told_by_file_value_and_count(tmp_path: Path) -> None:  # mutation: stray values ignored
    raw = np.array([[0, 18, 255, 77], [77, 77, 19, 1]], np.uint8)
    with pytest.raises(DataError) as error:
        read_label(label_of(tmp_path, Image.fromarray(raw)), domain("streets-game"))
    text = str(error.value)
    assert str(tmp_path / "label.png") in text and "value 77 in 3 pixels" in text and "1 more" in text
    assert "0..18, 255" in text


def test_palette_labels_answer_their_numbers(tmp_path: Path) -> None:  # mutation: convert("RGB") or convert("L")
    raw = np.array([[0, 1], [18, 255]], np.uint8)
    picture = Image.fromarray(raw, "P")
    picture.putpalette(np.arange(768, dtype=np.uint8)[::-1].tobytes())
    np.testing.assert_array_equal(read_label(label_of(tmp_path, picture), domain("streets-game")), raw)


def test_colours_in_place_of_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mode RGB"):
        read_label(label_of(tmp_path, Image.fromarray(PIXELS)), domain("streets-game"))


def test_unequal_sizes_name_both_files(tmp_path: Path) -> None:  # mutation: no comparison
    folder = write_streets(tmp_path, 1)
    image = next(folder.rglob("*_leftImg8bit.png"))
    Image.fromarray(PIXELS).save(image)
    with pytest.raises(DataError, match=r"leftImg8bit\.png is 7x5.*labelTrainIds\.png is 64x32"):
        Dataset(domain("streets-game"), tmp_path, "train").read(0)


def test_memory_is_bounded_and_changes_nothing(tmp_path: Path) -> None:  # mutation: kept without limit, or wrong index
    folder = write_streets(tmp_path, 4)
    one = 32 * 64 * 4
    kept = Dataset(domain("streets-game"), tmp_path, "train", memory=2 * one)
    first = [kept.read(index) for index in range(4)]
    again = [kept.read(index) for index in range(4)]
    for (image, label), (image_again, label_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(label, label_again)
        assert not image.flags.writeable and not label.flags.writeable
    for file in folder.rglob("*.png"):
        file.unlink()
    kept.read(0), kept.read(1)
    with pytest.raises(DataError):
        kept.read(2)


def test_the_check_reads_few_pairs_from_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_streets(tmp_path, 3)
    data, seen = Dataset(domain("streets-game"), tmp_path, "train"), list[int]()
    monkeypatch.setattr(data, "read", seen.append)
    data.check()
    assert seen == [0, 1, 2]
    data.pairs *= 100
    data.check()  # mutation: the first 32 alone
    steps = set(np.diff(seen[3:]).tolist())
    assert len(seen) == 3 + 32 and (seen[3], seen[-1]) == (0, 299) and steps == {9, 10}
