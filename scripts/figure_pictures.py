"""Drawing for `make_figures.py`: rows of pictures with words, heat maps with a scale, lines over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dgss.files import atomic_path
from dgss.inference.predictor import letters
from dgss.interfaces import Picture

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

ENLARGED = 2  # whole, so that pixels stay pixels
PAPER, INK, FAINT = (255, 255, 255), (30, 34, 38), (100, 106, 112)
COLOURS = ("#0b62a8", "#d1641a")
# so few that a file of 256 colours has room for the pictures
HEAT = cv2.applyColorMap(np.linspace(0, 255, 48).astype(np.uint8)[None], cv2.COLORMAP_INFERNO)[0, :, ::-1]
_PHOTO_COLOURS = 200
_GAP, _LINE = 12, 34
_TEXT, _SMALL = 24, 20


@dataclass(frozen=True)
class Tile:
    """A picture (H, W, 3) with a line of words above it: one on the left, a fainter one on the right."""

    picture: Picture = field(repr=False)
    left: str = ""
    right: str = ""


def large(picture: Picture) -> Picture:
    """(H, W, ...) enlarged, each pixel a square."""
    return picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def outlined(picture: Picture, mask: Mask) -> Picture:
    """An enlarged picture with the borders of a mask (H, W) in white on black."""
    shown = np.ascontiguousarray(picture)
    borders, _ = cv2.findContours(large(mask.astype(np.uint8)), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.drawContours(shown, borders, -1, colour, width)
    return shown


def heat(values: Map, low: float, high: float) -> Picture:
    """Values (H, W) as one of `HEAT` each, (H, W, 3): black for `low`, yellow for `high`."""
    levels = np.clip((values - low) / (high - low) * len(HEAT), 0, len(HEAT) - 1).astype(np.uint8)
    return np.asarray(HEAT[levels], np.uint8)


def colour_bar(width: int, low: float, high: float, title: str, step: float = 0.1) -> Picture:
    """The scale of `heat`: its title, the colours from left to right, numbers below."""
    bar = Image.new("RGB", (width, 2 * _LINE + 20), PAPER)
    draw = ImageDraw.Draw(bar)
    inner = width - 120
    ramp = np.linspace(low, high, inner, dtype=np.float32)[None].repeat(20, 0)
    draw.text((60, 0), title, INK, letters(_SMALL))
    bar.paste(Image.fromarray(heat(ramp, low, high)), (60, _LINE))
    for tick in np.arange(round(low / step), round(high / step) + 1) * step:
        x = 60 + (tick - low) / (high - low) * inner
        draw.text((x, _LINE + 24), f"{tick:.1f}".replace("-0.0", "0.0"), INK, letters(_SMALL), anchor="ma")
    return np.asarray(bar)


def sheet(rows: Sequence[Sequence[Tile]], foot: Picture) -> Image.Image:
    """Tiles of one size in rows, `foot` in the middle below them."""
    height, width = rows[0][0].picture.shape[:2]
    across = len(rows[0]) * (width + _GAP) - _GAP
    heads = [_LINE if any(tile.left or tile.right for tile in row) else 0 for row in rows]
    below = sum(heads) + len(rows) * (height + _GAP)
    page = Image.new("RGB", (across, below + foot.shape[0]), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for row, head in zip(rows, heads, strict=True):
        for column, tile in enumerate(row):
            left = column * (width + _GAP)
            draw.text((left, top + 2), tile.left, INK, letters(_TEXT))
            draw.text((left + width, top + 5), tile.right, FAINT, letters(_SMALL), anchor="ra")
            page.paste(Image.fromarray(tile.picture), (left, top + head))
        top += head + height + _GAP
    page.paste(Image.fromarray(foot), ((across - foot.shape[1]) // 2, below))
    return page


def save(page: Image.Image, path: Path) -> None:
    """Writes a PNG with a palette, atomically: heat maps and paper in their exact colours, all else in near ones."""
    pixels, digits = np.asarray(page), np.array([65536, 256, 1])
    codes, exact = pixels @ digits, np.vstack([HEAT, [PAPER]])
    known = exact @ digits
    rest = Image.fromarray(pixels[~np.isin(codes, known)][None])
    near = rest.quantize(_PHOTO_COLOURS, Image.Quantize.MEDIANCUT, kmeans=3).getpalette() or []
    colours = [*exact.ravel().tolist(), *near[: 3 * _PHOTO_COLOURS]]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    # Pillow takes a neighbour now and then where the palette has the very colour
    indices = np.array(page.quantize(palette=palette, dither=Image.Dither.NONE))
    for number, code in enumerate(known):
        indices[codes == code] = number
    few = Image.fromarray(indices, "P")
    few.putpalette(colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        few.save(temporary, format="PNG", optimize=True)


def layer_lines(curves: Mapping[str, NDArray[np.float64]], panels: Sequence[str], path: Path) -> None:
    """Small multiples, a panel each of `panels`: clarity over the layers m, a line a curve.

    curves: by their words in the legend, (seeds, panels, M + 1); the line is the mean, the band one sample deviation.
    """
    figure = Figure(figsize=(9, 7.2), dpi=200, layout="constrained")
    grid = figure.subplots(-(-len(panels) // 3), 3, sharex=True, sharey=True, squeeze=False)
    last = next(iter(curves.values())).shape[2] - 1
    for number, (name, axes) in enumerate(zip(panels, grid.flat, strict=False)):
        for (words, values), colour in zip(curves.items(), COLOURS, strict=False):
            mean = values[:, number].mean(0)
            spread = values[:, number].std(0, ddof=1) if len(values) > 1 else 0 * mean
            axes.plot(range(last + 1), mean, "o-", color=colour, label=words, linewidth=2, markersize=5)
            axes.fill_between(range(last + 1), mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            higher = mean[-1] >= np.mean([other[:, number, -1].mean() for other in curves.values()])
            place = {"xytext": (7, 4 if higher else -11), "textcoords": "offset points"}
            axes.annotate(f"{mean[-1]:.2f}", (last, mean[-1]), color=colour, **place)
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold" if number == 0 else "normal")
        axes.set_xticks(range(last + 1), ["0\nbefore", *map(str, range(1, last)), f"{last}\nafter"])
        axes.set_xlim(-0.2, last + 0.6)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylim(bottom=0)  # where labels say nothing about pixels
    figure.supxlabel("layer m of the pixel decoder", fontsize=11)
    figure.supylabel(
        "pixel semantic clarity\n(cosine to the own class minus cosine to the others)", fontsize=11, ma="center"
    )
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
