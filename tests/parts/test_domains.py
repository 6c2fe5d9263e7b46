"""Where files lie and what label values mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgss.data.dataset import Dataset, read_label
from dgss.data.domains import DOMAINS, domain
from dgss.errors import DataError
from dgss.labels import IGNORE, label_space
from dgss.recipes.schema import Recipe, differences
from tests.parts.standin import write_camvid, write_streets

CAMVID = Path(__file__).parents[2].parent / "shared" / "data" / "camvid"
ENCODINGS = [(name, encoding) for name, entry in DOMAINS.items() for encoding in entry.encodings]


def test_every_drawn_look_is_a_domain() -> None:  # mutation: a look left out of the table
    looks = pytest.importorskip("dgss.streets.draw").LOOKS
    assert {entry.drawn for entry in DOMAINS.values() if entry.drawn} == set(looks)


@pytest.mark.parametrize(("name", "encoding"), ENCODINGS)
def test_every_raw_value_is_a_class_or_ignored(name: str, encoding: str) -> None:  # mutation: table filled with 0
    entry = domain(name)
    meaning = entry.encoding(encoding)
    classes = len(label_space(entry.labels))
    assert all(value < classes or value == IGNORE for value in meaning.table)
    assert set(meaning.table[meaning.known]) == {*range(classes), IGNORE}, "a class that no value means"
    assert (meaning.table[~meaning.known] == IGNORE).all()


def test_ids_and_train_ids_of_cityscapes_mean_the_same(tmp_path: Path) -> None:  # mutation: ids read as train ids
    folder = write_streets(tmp_path)
    entry = domain("streets-game")
    converted = [read_label(pair, entry) for pair in entry.pairs(tmp_path, "train")]
    for file in folder.rglob("*_labelTrainIds.png"):
        file.unlink()
    original = entry.pairs(tmp_path, "train")
    assert all(pair.label.name.endswith("_labelIds.png") for pair in original)
    for pair, expected in zip(original, converted, strict=True):
        np.testing.assert_array_equal(read_label(pair, entry), expected)


def test_root_is_the_folder_or_the_one_above(tmp_path: Path) -> None:  # mutation: only one of the two tried
    folder = write_streets(tmp_path)
    assert domain("streets-game").pairs(tmp_path, "train") == domain("streets-game").pairs(folder, "train")


def test_order_and_count_are_fixed(tmp_path: Path) -> None:  # mutation: no sorting, count ignored
    write_streets(tmp_path, count=4)
    names = [pair.name for pair in domain("streets-game").pairs(tmp_path, "train", 3)]
    assert names == [f"drawnstreets-game_{seed:06}_000019" for seed in range(3)]


def test_unknown_names_are_met_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="streets-game"):
        domain("street-game")
    for odd in (3, None, ["camvid"]):
        with pytest.raises(DataError, match="no domain is called"):
            domain(odd)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'val'"):
        domain("camvid").pairs(tmp_path, "vall")


@pytest.mark.parametrize("name", ["streets-fog", "camvid"])
def test_a_missing_folder_says_where_what_and_whence(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        domain(name).pairs(tmp_path / "none", "val")
    text = str(error.value)
    assert str(tmp_path / "none" / name) in text, "the folder looked for"
    assert domain(name).layout in text, "what is expected there"
    assert domain(name).source in text, "where it comes from"
    assert "\n" not in text


def test_too_few_images_and_lost_labels_are_counted(tmp_path: Path) -> None:  # mutation: silently fewer
    folder = write_streets(tmp_path, count=3)
    with pytest.raises(DataError, match=r"3 images in .* 5 wanted"):
        domain("streets-game").pairs(tmp_path, "train", 5)
    for file in list(folder.rglob("*_gtFine_*"))[:2]:
        stem = file.name.split("_gtFine")[0]
        for label in file.parent.glob(f"{stem}*"):
            label.unlink()
    with pytest.raises(DataError, match="have no label file"):
        domain("streets-game").pairs(tmp_path, "train")


def test_listed_frames_that_are_missing_are_named(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    (tmp_path / "test" / "labels" / "f1.png").unlink()
    with pytest.raises(DataError, match=r"1 files listed .* first .*f1\.png"):
        domain("camvid").pairs(tmp_path, "test")


def test_unlabelled_of_camvid_is_ignored_and_twelve_is_not(tmp_path: Path) -> None:  # mutation: 11 kept as a class
    write_camvid(tmp_path)
    pair = domain("camvid").pairs(tmp_path, "test")[0]
    raw = np.array([[0, 10, 11]], np.uint8)
    Image.fromarray(raw).save(pair.label)
    np.testing.assert_array_equal(read_label(pair, domain("camvid")), [[0, 10, IGNORE]])
    Image.fromarray(raw + 1).save(pair.label)
    with pytest.raises(DataError, match="value 12 in 1 pixels"):
        read_label(pair, domain("camvid"))


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"the real frames are not in {CAMVID}")
@pytest.mark.parametrize(("split", "count"), [("train", 96), ("val", 24), ("test", 48)])
def test_real_frames_are_read(split: str, count: int) -> None:
    data = Dataset(domain("camvid"), CAMVID, split)
    assert len(data) == count
    image, label = data.read(count - 1)
    assert image.shape == (360, 480, 3) and label.shape == (360, 480)
    assert 5 <= len(np.unique(label)) <= 12


def test_frames_of_camvid_may_be_png(tmp_path: Path) -> None:  # mutation: .jpg alone
    write_camvid(tmp_path)
    (tmp_path / "test" / "images" / "f1.jpg").rename(tmp_path / "test" / "images" / "f1.png")
    names = [pair.image.name for pair in domain("camvid").pairs(tmp_path, "test")]
    assert names == ["f0.jpg", "f1.png", "f2.jpg"]


def test_a_list_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    (tmp_path / "test.txt").write_bytes(b"f\xff\xfe0\n")
    with pytest.raises(DataError, match=r"test\.txt cannot be read as UTF-8"):
        domain("camvid").pairs(tmp_path, "test")


def test_gta5_is_read_as_it_is_unpacked(tmp_path: Path) -> None:  # mutation: the palette's colours read as values
    for name in ("images", "labels"):
        (tmp_path / "gta5" / name).mkdir(parents=True)
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "gta5" / "images" / "00001.png")
    label = Image.new("P", (4, 3))
    label.putpalette([value for index in range(256) for value in (255 - index, index, 0)])
    label.putdata([7, 8, 26, 34, 0, 33, 11, 7, 7, 7, 7, 7])
    label.save(tmp_path / "gta5" / "labels" / "00001.png")
    _, found = Dataset(domain("gta5"), tmp_path, "train").read(0)
    assert found.ravel().tolist()[:7] == [0, 1, 13, IGNORE, IGNORE, 18, 2]
    Image.new("RGB", (4, 3)).save(tmp_path / "gta5" / "images" / "00002.png")
    with pytest.raises(DataError, match=r"1 images in .* have no label file, first .*00002\.png"):
        domain("gta5").pairs(tmp_path, "train")


def write_synthia(root: Path, ids: list[list[int]]) -> Path:
    """One pair in SYNTHIA's layout and encoding: 16-bit RGB, the class red, the instance green."""
    cv2 = pytest.importorskip("cv2")
    for name in ("RGB", "GT/LABELS"):
        (root / "synthia" / name).mkdir(parents=True)
    red = np.array(ids, np.uint16)
    green, blue = np.full_like(red, 7), np.full_like(red, 5)  # values that are classes too: a wrong channel shows
    label = root / "synthia" / "GT" / "LABELS" / "0000001.png"
    cv2.imwrite(str(label), np.dstack([blue, green, red]))
    Image.new("RGB", red.shape[::-1], (9, 8, 7)).save(root / "synthia" / "RGB" / label.name)
    return label


def test_synthia_is_read_as_it_is_unpacked(tmp_path: Path) -> None:  # mutation: Pillow's high byte, another channel
    label = write_synthia(tmp_path, [list(range(23))])
    with Image.open(label) as naive:
        assert not np.asarray(naive).any(), "what Pillow makes of it"
    _, found = Dataset(domain("synthia"), tmp_path, "train").read(0)
    expected = [255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3, 255]
    assert found.dtype == np.uint8 and found.tolist() == [expected]


def test_a_label_of_synthia_that_is_none_is_told(tmp_path: Path) -> None:
    label = write_synthia(tmp_path, [[1, 23, 300], [300, 300, 3]])
    data = Dataset(domain("synthia"), tmp_path, "train")
    with pytest.raises(DataError, match=r"0000001\.png: value 300 in 3 pixels and 1 more .* allowed: 0\.\.22, 255"):
        data.read(0)  # mutation: the low byte alone
    whole = label.read_bytes()
    label.write_bytes(whole[: len(whole) // 2])  # a few of them come so out of the archive
    with pytest.raises(DataError, match=r"0000001\.png cannot be decoded"):
        data.read(0)
    for image in (Image.new("RGB", (3, 2), (3, 0, 0)), Image.new("L", (3, 2)), Image.new("I;16", (3, 2))):
        image.save(label)  # the colours, or what some tool has cut to 8 bits
        with pytest.raises(DataError, match=r"0000001\.png: .* 16-bit RGB"):
            data.read(0)


def test_synthia_as_a_source_is_one_changed_field() -> None:
    game = Recipe.load("tqdm-clip-b-gta5")
    other = Recipe.load("tqdm-clip-b-gta5", ["source=synthia"])
    assert differences(game, other) == ["source was 'gta5', is 'synthia'"] and other.labels == game.labels
