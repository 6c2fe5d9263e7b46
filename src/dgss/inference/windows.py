"""Class scores of images larger than the model likes: windows, their average, flips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from dgss.interfaces import Size

Side = Annotated[int, Field(ge=1, le=8192)]
ScoreFunction = Callable[[Tensor], Tensor]
"""Images (B, 3, h, w) to class scores (B, K, h, w)."""

_STRIP = 2**22  # numbers in an enlarged strip


class InferenceSettings(BaseModel):
    """How an image is looked at.

    window: (H, W) of the windows, None the whole image at once. stride: from one window to the next, None two thirds
    of the window. flip: average with the mirrored image. short_edge: photos are resized so that their short edge has
    so many pixels, and scores are brought back; None their own size. (A protocol says its own sizes.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: tuple[Side, Side] | None = None
    stride: tuple[Side, Side] | None = None
    flip: bool = False
    short_edge: Side | None = None

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        if self.stride is not None and self.window is None:
            raise ValueError(f"stride = {list(self.stride)}: needs a window; set window too or leave stride out")
        if self.stride is not None and self.window is not None:
            stride, window = list(self.stride), list(self.window)
            if stride[0] > window[0] or stride[1] > window[1]:
                raise ValueError(f"stride = {stride}: leaves gaps between windows of {window}; lower it")
        return self


def plan(size: Size, window: Size, stride: Size) -> list[tuple[int, int, int, int]]:
    """The windows (top, left, bottom, right) over an image of `size` (tqdm, slide_inference).

    rows = max(H - crop + stride - 1, 0) // stride + 1; the last window is moved back to end at the edge. An image
    smaller than the window gives one smaller window.
    """
    return [
        (top, left, top + min(window[0], size[0]), left + min(window[1], size[1]))
        for top in _starts(size[0], window[0], stride[0])
        for left in _starts(size[1], window[1], stride[1])
    ]


def window_scores(score: ScoreFunction, images: Tensor, settings: InferenceSettings, at_once: int = 8) -> Tensor:
    """Class scores (B, K, H, W) of images (B, 3, H, W): the windows' sum divided by how many cover each pixel.

    Up to `at_once` windows go through `score` in one call.
    """
    batch, _, height, width = images.shape
    window = settings.window or (height, width)
    stride = settings.stride or (max(window[0] * 2 // 3, 1), max(window[1] * 2 // 3, 1))
    boxes = plan((height, width), window, stride)
    if len(boxes) == 1:
        return score(images)
    cuts = [(image, box) for image in range(batch) for box in boxes]
    total: Tensor | None = None
    for first in range(0, len(cuts), at_once):
        part = cuts[first : first + at_once]
        answers = score(torch.stack([images[i, :, t:b, left:r] for i, (t, left, b, r) in part]))
        if total is None:
            total = answers.new_zeros(batch, answers.shape[1], height, width)
        for (image, (top, left, bottom, right)), answer in zip(part, answers, strict=True):
            total[image, :, top:bottom, left:right] += answer
    assert total is not None
    return total / _coverage(boxes, (height, width), total)


def average_views(scores: Sequence[Tensor], flipped: Sequence[bool]) -> Tensor:
    """The mean of the views' softmax maps (B, K, H, W); a flipped view is flipped back first."""
    views = [view.softmax(1).flip(-1) if back else view.softmax(1) for view, back in zip(scores, flipped, strict=True)]
    return torch.stack(views).mean(0)


def view_scores(score: ScoreFunction, images: Tensor, settings: InferenceSettings, size: Size | None = None) -> Tensor:
    """Class scores (B, K, *size) of images (B, 3, H, W), size None = (H, W); with `flip` the mean of probabilities."""
    return torch.cat(list(score_strips(score, images, settings, size)), 2)


def score_strips(
    score: ScoreFunction, images: Tensor, settings: InferenceSettings, size: Size | None = None
) -> Iterator[Tensor]:
    """The rows of `view_scores` in strips (B, K, rows, W) from the top, bit for bit: enlarged one after another, they
    never fill the memory that all classes of a large photo take."""
    views = [images, images.flip(-1)] if settings.flip else [images]
    scores = [window_scores(score, view, settings) for view in views]
    size = size or (images.shape[2], images.shape[3])
    if scores[0].shape[-2:] == tuple(size):
        yield _combined(scores)
        return
    wide = [resize_scores(view, (view.shape[2], size[1])) for view in scores]
    rows = max(_STRIP // (scores[0].shape[0] * scores[0].shape[1] * size[1]), 1)
    for top in range(0, size[0], rows):
        yield _combined([_rows(view, top, min(top + rows, size[0]), size[0]) for view in wide])


def _combined(views: Sequence[Tensor]) -> Tensor:
    """Scores of the one view, or the mean of the two of which the second is mirrored."""
    return average_views(views, [False, True]) if len(views) == 2 else views[0]


def resize_scores(scores: Tensor, size: Size) -> Tensor:
    """Scores (B, K, h, w) to (B, K, *size), bilinear, corners not aligned; equal sizes stay as they are."""
    if scores.shape[-2:] == tuple(size):
        return scores
    return interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def _rows(scores: Tensor, top: int, bottom: int, height: int) -> Tensor:
    """Rows top to bottom of scores (B, K, h, W) brought to `height` rows, bilinear, corners not aligned.

    One pixel after another, unlike torch's own, whose last bits change with the rows asked for.
    """
    length = scores.shape[2]
    place = ((torch.arange(top, bottom, dtype=torch.float64) + 0.5) * length / height - 0.5).clamp(min=0)
    above = place.long().clamp(max=length - 1)
    share = (place - above).to(scores.dtype).to(scores.device)[:, None]
    above = above.to(scores.device)
    return scores[:, :, above] * (1 - share) + scores[:, :, (above + 1).clamp(max=length - 1)] * share


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride + window, length) - window, 0) for index in range(count)]


def _coverage(boxes: Sequence[tuple[int, int, int, int]], size: Size, like: Tensor) -> Tensor:
    """How many windows cover each pixel: (1, H, W)."""
    count = like.new_zeros(1, *size)
    for top, left, bottom, right in boxes:
        count[:, top:bottom, left:right] += 1
    return count
