"""Drawn, painted and folded: sketch, painting, origami."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dgss.streets.kinds import Colour, Material
from dgss.streets.lens import blurred, luma, saturate, sharpen
from dgss.streets.noise import BLOTCH, FBM, FINE, Floats, cell_hash, plane_noise
from dgss.streets.shading import Shot

_INKS: tuple[Colour, ...] = ((0.16, 0.16, 0.17), (0.3, 0.19, 0.11), (0.13, 0.16, 0.4))  # graphite, sepia, blue
_PAPERS: tuple[Colour, ...] = ((0.95, 0.92, 0.83), (0.8, 0.7, 0.55), (0.97, 0.97, 0.96))  # cream, kraft, white
_HATCH_BELOW = ((0.5, 1.0), (0.3, -1.0))  # brightness under which lines of this slant are drawn
_USUAL_GREY = 0.58  # mean brightness to which a picture is brought before it is hatched
_STROKES = ((400, 9.0, 4.0), (1600, 5.0, 2.2), (3000, 3.0, 1.2))  # count, half axes in pixels of a picture 256 wide
_STROKE_CORNERS = 10
_STRONG_EDGE = 0.05
_GROUND_FOLDS, _FOLDS = (2.5, 4.0), (1.4, 1.7)  # metres between folds, on the ground and elsewhere, two ways
_SKY_FOLDS = 0.2  # part of the image between folds of the sky
_PAPER_REACH = 4  # buffer pixels of the shadow that a sheet throws
_PAPER_NEARER = 0.93  # part of the depth below which something throws it


def draw_lines(shot: Shot) -> None:
    """The whole picture as ink on paper: outlines, hatching in the dark, grain."""
    stream, unit = shot.stream, shot.unit
    grey = luma(shot.image)
    lines = np.maximum(0.9 * _outlines(shot), _fine_lines(grey, unit))
    lines = _unsteady(lines.astype(np.float32), unit)
    height, width = grey.shape
    pressure = 0.8 + 0.35 * plane_noise(FBM, height, width, 0.6, 0.4, stream.uniform())
    ink = np.maximum(np.clip(lines * pressure, 0, 1), 0.62 * _hatching(shot, blurred(grey, 0.7 * unit)))
    paper, colour = stream.pick(_PAPERS), stream.pick(_INKS)
    grain = plane_noise(FINE, height, width, width / 256, height / 256)
    shot.image = np.empty_like(shot.image)
    for channel in range(3):
        ground = np.float32(paper[channel]) * (1 + 0.035 * grain)
        shot.image[..., channel] = ground + ink * (1 + 0.25 * grain) * (np.float32(colour[channel]) - ground)


def _outlines(shot: Shot) -> Floats:
    """Borders between classes and things: (H, W)."""
    buffer = shot.buffer
    key = buffer.labels.astype(np.int32) + 32 * buffer.instances.astype(np.int32)
    border = np.zeros(key.shape, np.float32)
    border[:, 1:] = key[:, 1:] != key[:, :-1]
    border[1:] = np.maximum(border[1:], key[1:] != key[:-1])
    soft = blurred(border, 0.45 + 0.35 * shot.unit)
    height, width = soft.shape
    pooled = soft.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))
    lines: Floats = np.clip(1.5 * pooled - 0.15, 0, 1)
    return lines


def _fine_lines(grey: Floats, unit: float) -> Floats:
    """Lines where the brightness changes: (H, W)."""
    difference = blurred(grey, 1.6 * unit) - blurred(grey, 0.7 * unit)
    return np.clip(22 * difference - 0.08, 0, 1)


def _unsteady(lines: Floats, unit: float) -> Floats:
    """Lines moved a little, as a hand would draw them."""
    height, width = lines.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    reach = np.float32(1.3 * unit)
    columns += reach * plane_noise(BLOTCH, height, width, 1.5, 1.5)
    rows += reach * plane_noise(BLOTCH, height, width, 1.5, 1.5, 0.4)
    return np.asarray(cv2.remap(lines, columns, rows, cv2.INTER_LINEAR))


def _hatching(shot: Shot, grey: Floats) -> Floats:
    """Slanted lines over what is dark: (H, W)."""
    height, width = grey.shape
    period = shot.stream.uniform(2.8, 4.2) * shot.unit
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    wobble = 1.5 * np.float32(shot.unit) * plane_noise(BLOTCH, height, width, 1.0, 1.0, 0.2)
    hatched = np.zeros_like(grey)
    grey = grey * np.float32(_USUAL_GREY / max(float(grey.mean()), 0.1))
    for level, slant in _HATCH_BELOW:
        wave = np.cos((columns + np.float32(slant) * rows + wobble) * np.float32(2 * np.pi / period))
        dark = np.clip((np.float32(level) - grey) * 8, 0, 1)
        hatched = np.maximum(hatched, np.clip(1.5 * wave - 0.4, 0, 1) * dark)
    return hatched


def paint_strokes(shot: Shot) -> None:
    """The whole picture in brush strokes, coarse ones first, on canvas."""
    stream, unit = shot.stream, shot.unit
    image = saturate(shot.image, stream.uniform(1.3, 2.0))
    image *= np.array([stream.uniform(0.85, 1.15) for _ in range(3)], np.float32)
    source = np.clip(image, 0, 1)
    direction = _stroke_directions(source, unit)
    canvas = np.ascontiguousarray(np.clip(blurred(source, 4 * unit), 0, 1))
    for count, length, breadth in _STROKES:
        _stroke_pass(shot, canvas, source, direction, (count, length * unit, breadth * unit))
    height, width = canvas.shape[:2]
    weave = plane_noise(FINE, height, width, width / 256, height / 256)
    shot.image = np.asarray(sharpen(canvas, 0.5, 1.0 * unit) * (1 + 0.05 * weave[..., None]), np.float32)


def _stroke_directions(image: Floats, unit: float) -> Floats:
    """Angle of a stroke at each pixel, radians: along edges, elsewhere by noise. (H, W)."""
    grey = blurred(luma(image), 1.5 * unit)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3) * np.float32(0.25)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3) * np.float32(0.25)
    strength = np.hypot(across, down)
    height, width = grey.shape
    free = np.float32(np.pi) * plane_noise(BLOTCH, height, width, 0.8, 0.5)
    return np.where(strength > _STRONG_EDGE / unit, np.arctan2(across, -down), free).astype(np.float32)


def _stroke_pass(
    shot: Shot, canvas: Floats, source: Floats, direction: Floats, brush: tuple[int, float, float]
) -> None:
    """One pass of filled ellipses: (count, half length, half breadth)."""
    count, length, breadth = brush
    height, width = direction.shape
    draws = shot.stream.many(3 * count).reshape(count, 3)
    columns, rows = (draws[:, 0] * width).astype(np.intp), (draws[:, 1] * height).astype(np.intp)
    angle = direction[rows, columns].astype(np.float64)
    colours = source[rows, columns] * (1 + 0.22 * (draws[:, 2:] - 0.5))
    turn = np.arange(_STROKE_CORNERS) * (2 * np.pi / _STROKE_CORNERS)
    along, aside = length * np.cos(turn), breadth * np.sin(turn)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x = columns[:, None] + cosine * along - sine * aside
    y = rows[:, None] + sine * along + cosine * aside
    outlines = np.rint(np.stack([x, y], axis=2) * 16).astype(np.int32)
    for outline, colour in zip(outlines, colours.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_8, 4)


def fold(shot: Shot) -> None:
    """Every surface in pastel paper, folded into facets of their own brightness."""
    buffer = shot.buffer
    mean = shot.albedo.mean(axis=0)
    for channel in range(3):
        plane = shot.albedo[channel]
        pastel = 0.4 + 0.5 * np.sqrt(np.maximum(plane, 0)) + 1.5 * (plane - mean)
        shot.albedo[channel] = np.clip(pastel, 0.03, 1.2) ** 2
    shot.albedo *= _facets(shot)
    sky = buffer.pixels.get(Material.SKY)
    if sky is not None:
        shot.albedo[:, sky] = 0
    shot.gloss *= np.float32(0.4)


def _facets(shot: Shot) -> Floats:
    """Brightness of the facet under each pixel: (N,)."""
    buffer = shot.buffer
    flat = buffer.table.v_along_z.take(buffer.numbers) > 0
    first, second = (
        np.where(flat, np.float32(ground), np.float32(other))
        for ground, other in zip(_GROUND_FOLDS, _FOLDS, strict=True)
    )
    u, v = buffer.u, buffer.v
    key = 3 * np.floor((0.8 * u + 0.5 * v) / first) + np.floor((0.5 * u - 0.9 * v) / second)
    return 0.62 + 0.52 * cell_hash(key, buffer.numbers, 23)


def fold_sky(shot: Shot) -> None:
    """The sky as strips of paper."""
    at = shot.buffer.pixels.get(Material.SKY)
    if at is None:
        return
    camera = shot.buffer.camera
    x = (at % camera.width) / np.float32(camera.width)
    y = (at // camera.width) / np.float32(camera.width)
    key = 3 * np.floor((0.8 * x + 0.5 * y) / _SKY_FOLDS) + np.floor((0.5 * x - 0.9 * y) / (0.8 * _SKY_FOLDS))
    shot.total[:, at] *= 0.72 + 0.36 * cell_hash(key, np.zeros_like(key), 29)


def paper_shadows(shot: Shot) -> None:
    """A soft shadow to the lower right of every sheet that lies before another."""
    camera = shot.buffer.camera
    depth = shot.buffer.depth.reshape(camera.height, camera.width)
    reach = round(_PAPER_REACH * shot.unit)
    behind: NDArray[np.uint8] = np.zeros(depth.shape, np.uint8)
    behind[reach:, reach:] = (depth[:-reach, :-reach] < _PAPER_NEARER * depth[reach:, reach:]) * np.uint8(255)
    soft = cv2.blur(behind, (2 * reach + 1, 2 * reach + 1)).astype(np.float32) * np.float32(0.45 / 255)
    shot.total *= 1 - soft.ravel()


def paper_grain(shot: Shot) -> None:
    """The tooth of the paper, and the strong colours of paper."""
    shot.image = saturate(shot.image, 1.35)
    height, width = shot.image.shape[:2]
    tooth = plane_noise(FINE, height, width, width / 256, height / 256)
    shot.image *= (1 + 0.035 * tooth)[..., None]
