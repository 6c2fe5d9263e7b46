"""Makes the pictures of the README and of docs/domains.md: `python scripts/make_pictures.py [RUN]`.

docs/images/streets.jpg: all ten looks of the streets. docs/images/demo.png, where a finished RUN is named: an image and
its labels for every domain, and the run's scores. The one in the README is of `runs/ablations/tqdm-mini-streets-seed0`,
the demo scored on 96 images a domain.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import dgss
from dgss.api.load import TrainedModel
from dgss.files import atomic_path
from dgss.labels import LabelSpace
from dgss.streets.contact import contact_sheet
from dgss.streets.draw import LOOKS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = (128, 256)
GAP, TITLE, MARGIN, COLUMNS = 8, 26, 88, 3
SEEDS = {"game": 5003, "photo": 5001, "night": 5001, "fog": 5002, "rain": 5006, "snow": 5001, "sketch": 5001}
PAPER, INK, FAINT = (255, 255, 255), (30, 34, 38), (110, 116, 122)


def demo_picture(run: Path) -> Image.Image:
    """Nine cells, image and labels side by side, each with its domain's name and mIoU; below them the classes."""
    model = dgss.load_model(run)
    scores = json.loads((run / "report.json").read_text(encoding="utf-8"))
    domains = {scores["source_name"]: scores["source"], **scores["targets"]}
    cell = (2 * SIZE[1] + 2, SIZE[0] + TITLE)
    rows = -(-len(domains) // COLUMNS)
    size = (COLUMNS * (cell[0] + 2 * GAP) - 2 * GAP, rows * (cell[1] + GAP))
    sheet = Image.new("RGB", (size[0], size[1] + 2 * TITLE), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (name, miou) in enumerate(domains.items()):
        look = name.removeprefix("streets-")
        street = dgss.draw_street(SEEDS.get(look, 5001), look, SIZE)
        left, top = number % COLUMNS * (cell[0] + 2 * GAP), number // COLUMNS * (cell[1] + GAP)
        role = "trained on" if number == 0 else "never seen"
        draw.text((left, top + 3), look, INK, font)
        draw.text((left + cell[0], top + 3), f"{role}, mIoU {miou:.1f} %", FAINT, font, anchor="ra")
        sheet.paste(Image.fromarray(pair(street.image, model)), (left, top + TITLE))
    key(draw, model.labels, size)
    return sheet


def streets_picture() -> Image.Image:
    """A row a look, its name on the left; four seeds in columns."""
    streets = Image.fromarray(contact_sheet(tuple(LOOKS), (5000, 5001, 5002, 5003), SIZE))
    sheet = Image.new("RGB", (MARGIN + streets.width, streets.height), PAPER)
    sheet.paste(streets, (MARGIN, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, look in enumerate(LOOKS):
        draw.text((MARGIN - GAP, row * SIZE[0] + SIZE[0] // 2), look, INK, font, anchor="rm")
    return sheet


def key(draw: ImageDraw.ImageDraw, labels: LabelSpace, size: tuple[int, int]) -> None:
    """Two lines below a sheet of `size` (width, height): what the colours mean."""
    font, columns = ImageFont.load_default(13), -(-len(labels) // 2)
    for number, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        left, top = number % columns * size[0] // columns, size[1] + number // columns * TITLE + 6
        draw.rectangle((left, top, left + 13, top + 13), colour)
        draw.text((left + 19, top - 1), name, INK, font)


def pair(image: NDArray[np.uint8], model: TrainedModel) -> NDArray[np.uint8]:
    """The image and its labels in colour, side by side; predicted at the image's own size, as the scores are."""
    gap = np.full((image.shape[0], 2, 3), 255, np.uint8)
    scores = model.scores(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    labels = scores[0].argmax(0).cpu().numpy().astype(np.uint8)
    return np.hstack([image, gap, model.labels.colour(labels)])


def main() -> None:
    """Writes the pictures."""
    pictures = {"streets.jpg": streets_picture()}
    if sys.argv[1:]:
        pictures["demo.png"] = demo_picture(Path(sys.argv[1]))
    for name, picture in pictures.items():
        with atomic_path(IMAGES / name) as temporary:
            picture.save(temporary, format="PNG" if name.endswith(".png") else "JPEG", optimize=True, quality=88)
        print(IMAGES / name)


if __name__ == "__main__":
    main()
