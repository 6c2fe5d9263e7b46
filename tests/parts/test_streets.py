"""Drawn streets: the same bits everywhere, exact labels, true geometry, whole files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dgss.errors import DataError, DgssError
from dgss.files import FolderLock
from dgss.labels import label_space
from dgss.streets import write
from dgss.streets.contact import contact_sheet
from dgss.streets.draw import LOOKS, Street, draw_street
from dgss.streets.gbuffer import GBuffer, look_up
from dgss.streets.kinds import Label, Material
from dgss.streets.looks import TABLE
from dgss.streets.noise import Stream, cell_hash, mix, noise, tile
from dgss.streets.palettes import Palette, PaletteKind
from dgss.streets.raster import Camera, Canvas, Row
from dgss.streets.road import Road, Verge
from dgss.streets.worker import draw_in_processes
from dgss.streets.write import Job, write_split

SMALL = (64, 128)
SPACE = label_space("cityscapes19")

# shares of pixels in percent that a street has on average, by train id: recorded on an earlier drawing program,
# trucks halved, walls raised
SHARES = (32.5, 3.6, 20, 0.6, 0.9, 1.5, 0.15, 0.4, 9.7, 1.6, 9.1, 1.1, 0.6, 11.4, 2.5, 0.6, 0.7, 0.4, 0.2)


def digest(street: Street) -> str:
    parts = (street.image, street.labels, street.instances)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_splitmix64_gives_its_published_numbers() -> None:
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


def test_many_draws_at_once_are_the_same_draws() -> None:
    one, other = Stream(3, 4), Stream(3, 4)
    assert [one.uniform() for _ in range(50)] == other.many(50).tolist()
    assert one.bits() == other.bits()


def test_streams_of_other_keys_differ_and_fill_their_range() -> None:
    draws = Stream(1, 2).many(4000)
    assert not np.array_equal(draws, Stream(2, 1).many(4000))
    assert abs(draws.mean() - 0.5) < 0.02 and abs(draws.std() - 12**-0.5) < 0.01
    assert {Stream(seed).whole(2, 4) for seed in range(50)} == {2, 3, 4}


def test_noise_tiles_are_periodic_and_cells_are_even() -> None:
    place = np.array([0.2, 0.7], np.float32)
    for kind in range(4):
        assert tile(kind).min() == -1 and tile(kind).max() == 1
        assert np.array_equal(noise(kind, place, place), noise(kind, place + 3, place - 5 + 6))
    cells = cell_hash(*np.mgrid[-60:60, 0:120], 5)
    assert abs(float(cells.mean()) - 0.5) < 0.01 and cells.min() >= 0 and cells.max() < 1


# --- geometry ---------------------------------------------------------------------------------------------------------

CAMERA = Camera(width=200, height=100, focal=160.0, centre=100.0, horizon=40.0, level=1.5)
VERGE = Verge(((Label.SIDEWALK, 0.0, 2.0),), 2.0)
STRAIGHT = Road(3.5, 2, 1, -5.25, 1.75, (False, False), (VERGE, VERGE), 0.0, None, None, (), 0.6)


def empty_canvas() -> Canvas:
    canvas = Canvas(CAMERA, Palette(PaletteKind.PHOTO), (0.0, 1.0, 0.0))
    canvas.add(Row(Label.SKY, 0, Material.SKY, (0.0, 0.0, 1e-4), (0.0,) * 3, (0.0, 0.0), (0.5,) * 3, (0.0,) * 4))
    return canvas


def at(buffer: GBuffer, column: int, row: int) -> int:
    return row * CAMERA.width + column


def test_a_front_polygon_lies_where_the_pinhole_puts_it() -> None:
    canvas = empty_canvas()
    box = [(-1.0, 0.5), (-1.0, 2.5), (2.0, 2.5), (2.0, 0.5)]
    canvas.brush(Label.CAR, thing=True).front(8.0, box, Material.PAINT, (0.5, 0.1, 0.1), origin=(-1.0, 0.5))
    buffer = look_up(canvas, STRAIGHT)
    rows, columns = np.nonzero(buffer.labels == Label.CAR)
    # x = 100 + 160 X / 8, y = 40 + 160 (1.5 - Y) / 8
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (80, 140, 20, 60)
    pixel = at(buffer, 120, 30)
    assert buffer.depth[pixel] == pytest.approx(8.0)
    assert (buffer.u[pixel], buffer.v[pixel]) == pytest.approx((2.0, 1.5))
    assert buffer.instances[30, 120] == 1 and buffer.instances[0, 0] == 0


def test_a_wall_along_the_road_has_the_depth_of_its_pixels() -> None:
    canvas = empty_canvas()
    corners = [(4.0, 0.0, 5.0), (4.0, 3.0, 5.0), (4.0, 3.0, 40.0), (4.0, 0.0, 40.0)]
    canvas.brush(Label.WALL).face(corners, Material.STONE, (0.5, 0.5, 0.5), origin=(5.0, 0.0))
    buffer = look_up(canvas, STRAIGHT)
    pixel = at(buffer, 164, 36)  # Z = f X / (x - cx) = 160 * 4 / 64 = 10; Y = 1.5 + 4 * 10 / 160
    assert buffer.labels[36, 164] == Label.WALL
    assert (buffer.depth[pixel], buffer.u[pixel], buffer.v[pixel]) == pytest.approx((10.0, 5.0, 1.75), rel=1e-5)


def test_the_far_side_of_a_solid_is_not_drawn_and_near_parts_are_cut() -> None:
    canvas = empty_canvas()
    brush = canvas.brush(Label.BUS, thing=True)
    towards = [(-1.0, 0.0, 6.0), (-1.0, 2.0, 6.0), (1.0, 2.0, 6.0), (1.0, 0.0, 6.0)]
    brush.face(towards[::-1], Material.PAINT, (0.5, 0.5, 0.5), solid=True)
    assert not canvas.numbers.any()
    brush.face(towards, Material.PAINT, (0.5, 0.5, 0.5), solid=True)
    assert canvas.numbers.any()
    reaching_back = [(2.0, 0.0, -5.0), (2.0, 1.0, -5.0), (2.0, 1.0, 9.0), (2.0, 0.0, 9.0)]
    brush.face(reaching_back, Material.PAINT, (0.5, 0.5, 0.5))
    assert canvas.numbers[50:, 180:].any() and not canvas.numbers[:, :60].any()


def test_a_fence_is_one_label_and_shows_what_stands_behind_its_gaps() -> None:
    canvas = empty_canvas()
    sheet = [(-3.0, 0.0), (-3.0, 2.0), (3.0, 2.0), (3.0, 0.0)]
    canvas.brush(Label.BUILDING).front(
        12.0, [(4 * x, 4 * y) for x, y in sheet], Material.FACADE, (0.5,) * 3, (3, 2, 0, 0.5)
    )
    for depth in (8.0, 6.0):
        canvas.brush(Label.FENCE).front(depth, sheet, Material.BARS, (0.1,) * 3, (0.5, 2.0, 0.0))
    buffer = look_up(canvas, STRAIGHT)
    near = canvas.numbers == 3
    near[58:] = False  # below the foot of the building one sees through to the sky
    seen = buffer.numbers.reshape(near.shape)
    assert set(np.unique(seen[near])) == {1, 3}, "through both fences one sees the building"
    assert (buffer.labels[near] == Label.FENCE).all()
    assert 0.2 < (seen[near] == 1).mean() < 0.7


# --- streets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_every_look_labels_every_pixel(look: str) -> None:
    street = draw_street(11, look, SMALL)
    assert street.image.shape == (*SMALL, 3) and street.image.dtype == np.uint8
    assert street.labels.shape == SMALL and street.labels.dtype == np.uint8 and street.labels.max() <= 18
    assert street.instances.shape == SMALL and street.instances.dtype == np.uint16
    assert street.image.std() > 8, "a picture, not a plain"
    things = np.array(SPACE.things)[street.labels]
    assert np.array_equal(street.instances > 0, things), "every thing has an instance, nothing else has"
    numbers = np.unique(street.instances[things])
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    for number in numbers:
        assert len(np.unique(street.labels[street.instances == number])) == 1


@pytest.mark.parametrize("size", [(48, 64), (97, 61), (33, 200)])
def test_any_size(size: tuple[int, int]) -> None:
    for look in LOOKS:
        street = draw_street(2, look, size)
        assert street.image.shape == (*size, 3) and street.labels.shape == size


def test_fresh_processes_draw_the_same_bits() -> None:
    looks = ("game", "photo", "night", "rain", "painting", "rand")
    code = (
        "import cv2, hashlib, sys\n"
        "from dgss.streets.draw import draw_street\n"
        "cv2.setNumThreads(int(sys.argv[1]))\n"
        f"for look in {looks!r}:\n"
        "    s = draw_street(7, look, (64, 128))\n"
        "    print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes() + s.instances.tobytes()).hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, threads], capture_output=True, text=True, check=True).stdout.split()
        for threads in ("1", "4")
    ]
    assert runs[0] == runs[1] == [digest(draw_street(7, look, SMALL)) for look in looks]


def test_seeds_and_looks_differ() -> None:
    assert len({digest(draw_street(seed, "photo", SMALL)) for seed in range(6)}) == 6
    images = [draw_street(1, look, SMALL).image.astype(float) for look in LOOKS]
    for number, image in enumerate(images):
        for other in images[number + 1 :]:
            assert np.abs(image - other).mean() > 10


@pytest.mark.parametrize("look", [look for look in LOOKS if TABLE[look].palette is PaletteKind.PHOTO])
def test_a_look_changes_colours_and_never_what_stands_where(look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = draw_street(3, "photo", SMALL)
    monkeypatch.setitem(TABLE, look, replace(TABLE[look], index=TABLE["photo"].index))
    other = draw_street(3, look, SMALL)
    assert np.array_equal(plain.labels, other.labels) and np.array_equal(plain.instances, other.instances)


def test_more_draws_for_the_light_move_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, light = draw_street(4, "rain", SMALL), TABLE["rain"].light

    def thirsty(stream: Stream) -> object:
        stream.many(100)
        return light(stream)

    monkeypatch.setitem(TABLE, "rain", replace(TABLE["rain"], light=thirsty))
    other = draw_street(4, "rain", SMALL)
    assert np.array_equal(plain.labels, other.labels) and not np.array_equal(plain.image, other.image)


def test_each_seed_and_look_has_its_own_light(monkeypatch: pytest.MonkeyPatch) -> None:
    light, first = TABLE["fog"].light, []

    def noted(stream: Stream) -> object:
        first.append(stream.bits())
        return light(stream)

    for look in ("fog", "snow"):
        monkeypatch.setitem(TABLE, look, replace(TABLE[look], light=noted))
        for seed in (0, 1):
            draw_street(seed, look, (16, 32))
    assert len(set(first)) == 4


def test_all_classes_occur_in_their_usual_shares() -> None:
    counts = np.zeros(19)
    for seed in range(60):
        counts += np.bincount(draw_street(seed, "photo", SMALL).labels.ravel(), minlength=19)
    shares = 100 * counts / counts.sum()
    assert (shares > 0).all(), [SPACE.names[label] for label in np.flatnonzero(shares == 0)]
    for name, share, usual in zip(SPACE.names, shares, SHARES, strict=True):
        factor = 1.5 if usual > 5 else 3.5
        assert usual / factor < share < usual * factor, f"{name}: {share:.2f} %, usually {usual} %"


def test_looks_show_their_weather() -> None:
    seeds = range(4)
    mean = {
        look: np.mean([draw_street(seed, look, SMALL).image.mean() for seed in seeds])
        for look in ("game", "night", "sketch")
    }
    assert mean["night"] < 0.75 * mean["game"] < 0.75 * mean["sketch"]
    spread = {
        look: np.mean([draw_street(seed, look, SMALL).image.std() for seed in seeds]) for look in ("photo", "fog")
    }
    assert spread["fog"] < 0.7 * spread["photo"]


def test_an_unknown_look_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'phote'.*'photo'"):
        draw_street(0, "phote")
    with pytest.raises(DataError, match="16 x 16"):
        draw_street(0, "game", (4, 400))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seed": "7"}, "seed is '7'"),
        ({"seed": -1}, "seed is -1"),
        ({"look": ["night"]}, "'night'"),
        ({"size": 128}, "size is 128"),
        ({"size": (128, 256, 3)}, "size is"),
        ({"size": (64.0, 64.0)}, "size is"),
    ],
)
def test_a_wrong_request_is_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        draw_street(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:  # mutation: type(seed) is int
    street = draw_street(np.int64(3), size=(np.int64(32), np.int64(64)))
    np.testing.assert_array_equal(street.image, draw_street(3, size=(32, 64)).image)


def test_a_contact_sheet_has_looks_in_rows() -> None:
    sheet = contact_sheet(("game", "fog"), (0, 1, 2), (32, 64))
    assert sheet.shape == (64, 192, 3)
    assert np.array_equal(sheet[32:, 64:128], draw_street(1, "fog", (32, 64)).image)


# --- on disk ----------------------------------------------------------------------------------------------------------

TINY = (32, 64)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_the_files_are_those_of_cityscapes(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "photo", "val", 2, SMALL, workers=0)
    assert folder == tmp_path / "streets-photo"
    stem, street = "drawnphoto/drawnphoto_005001_000019_", draw_street(5001, "photo", SMALL)
    assert len(files(folder)) == 8

    def read(tree: str, kind: str) -> np.ndarray:
        picture = cv2.imread(str(folder / tree / "val" / f"{stem}{kind}.png"), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        return np.asarray(picture)

    assert np.array_equal(read("leftImg8bit", "leftImg8bit")[..., ::-1], street.image)
    assert np.array_equal(read("gtFine", "gtFine_labelTrainIds"), street.labels)
    raw = read("gtFine", "gtFine_labelIds")
    assert np.array_equal(SPACE.from_raw()[raw], street.labels)
    instances = read("gtFine", "gtFine_instanceIds")
    things = np.array(SPACE.things)[street.labels]
    assert instances.dtype == np.uint16 and np.array_equal(instances[~things], raw[~things])
    assert np.array_equal(instances[things] // 1000, raw[things])
    pairs = {(int(a), int(b)) for a, b in zip(instances[things], street.instances[things], strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    index = json.loads((folder / "index.json").read_text())
    assert index["look"] == "photo"
    assert index["splits"]["val"] == {"version": write.VERSION, "size": [64, 128], "seeds": [5000, 5001]}


def test_any_number_of_workers_writes_the_same(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    here = write_split(tmp_path / "here", "rain", "train", 5, TINY, workers=0)
    there = write_split(
        tmp_path / "there", "rain", "train", 5, TINY, workers=2, on_image=lambda done, total: told.append((done, total))
    )
    assert files(here) == files(there)
    assert (here / "index.json").read_text() == (there / "index.json").read_text()
    assert told == [(done, 5) for done in range(1, 6)]


def test_what_is_there_stays_and_what_is_half_written_is_redone(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "fog", "test", 3, TINY, workers=0)
    whole, drawn = files(folder), []
    victim = folder / next(name for name in whole if "010001" in name and "labelIds" in name)
    victim.write_bytes(whole[victim.relative_to(folder).as_posix()][:-20])
    (folder / next(name for name in whole if "010002" in name and "leftImg8bit.png" in name)).unlink()
    write_split(tmp_path, "fog", "test", 4, TINY, workers=0, on_image=lambda *step: drawn.append(step))
    assert drawn == [(2, 4), (3, 4), (4, 4)]
    now = files(folder)
    assert {name: now[name] for name in whole} == whole and len(now) == 16


def test_an_interrupted_split_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = files(write_split(tmp_path / "complete", "snow", "train", 4, TINY, workers=0))
    draw, calls = Job.write, []

    def stopping(job: Job, seed: int) -> None:
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        draw(job, seed)

    monkeypatch.setattr(Job, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path / "cut", "snow", "train", 4, TINY, workers=0)
    folder = write_split(tmp_path / "cut", "snow", "train", 4, TINY, workers=0)
    assert calls == [0, 1, 2, 2, 3]
    assert files(folder) == complete
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("change", ["size", "version", "index"])
def test_a_split_of_another_kind_is_drawn_anew(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_split(tmp_path, "game", "train", 2, TINY, workers=0)
    other = write_split(tmp_path, "game", "val", 1, TINY, workers=0)
    kept, drawn = files(other / "leftImg8bit" / "val"), []
    size = (48, 64) if change == "size" else TINY
    if change == "version":
        monkeypatch.setattr(write, "VERSION", write.VERSION + 1)
    if change == "index":
        (folder / "index.json").write_text("{ half")
    write_split(tmp_path, "game", "train", 1, size, workers=0, on_image=lambda *step: drawn.append(step))
    assert drawn == [(1, 1)]
    assert len(files(folder / "leftImg8bit" / "train")) == 1, "what was drawn otherwise is gone"
    assert files(folder / "leftImg8bit" / "val") == kept, "the other split is not touched"
    assert json.loads((folder / "index.json").read_text())["splits"]["train"]["seeds"] == [0]


def test_first_names_the_seeds(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "rand", "train", 2, TINY, workers=0, first=20000)
    assert json.loads((folder / "index.json").read_text())["splits"]["train"]["seeds"] == [20000, 20001]


def test_wrong_orders_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'nihgt'.*'night'"):
        write_split(tmp_path, "nihgt", "train", 1)
    with pytest.raises(DataError, match=r"'vall'.*'val'"):
        write_split(tmp_path, "night", "vall", 1)
    with pytest.raises(DataError, match="16 x 16"):
        write_split(tmp_path, "night", "val", 1, (8, 8))
    assert not list(tmp_path.iterdir())


def test_a_process_waits_while_another_draws_in_the_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        with FolderLock(tmp_path / "streets-game"):
            drawn = other.submit(write_split, tmp_path, "game", "train", 1, TINY, 0)
            with pytest.raises(TimeoutError):
                drawn.result(timeout=0.3)
        assert len(files(drawn.result(timeout=60))) == 4


def test_a_complete_split_is_read_without_lock_or_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_split(tmp_path, "game", "train", 2, TINY, workers=0)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(write, "FolderLock", None)
    with FolderLock(folder):
        assert write_split(tmp_path, "game", "train", 1, TINY, workers=0) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_failing_worker_tells_why(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DgssError, match="cannot write"):
        list(draw_in_processes(Job(blocked, "game", "train", TINY), [0, 1], 2))
