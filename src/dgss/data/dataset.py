"""Reading images and labels: RGB uint8 out, or one line that says why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dgss.data.domains import Domain, Pair
from dgss.errors import DataError
from dgss.interfaces import ImageLike, Picture
from dgss.labels import LabelMap, label_space

MEMORY = 256 * 2**20
"""How many bytes of decoded pictures a data set keeps unless told."""
PIXEL_LIMIT = 80_000_000
"""Larger pictures are refused before they are decoded: a small file can unpack to any size."""
CHECKED = 32
"""How many pairs are looked at before a training begins: a second or two for pictures of 2048x1024."""
_AT_MOST = f"at most {PIXEL_LIMIT // 10**6} million are read"


def read_image(source: ImageLike, exif: bool = True) -> Picture:
    """An image as (H, W, 3) uint8, RGB, from a file, a Pillow image or an array.

    Grey becomes three equal channels, transparency shows black, 16 bits keep their high byte. `exif` turns a photo
    the way its camera was held; images with labels are read as stored, since their labels are not turned.
    Arrays: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16. Raises `DataError` on anything else.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(source) if exif else source, "the image")
    if not isinstance(source, str | Path):
        raise DataError(f"an image should be a path, a Pillow image or an array, not {type(source).__name__}")
    image = _open(Path(source).expanduser())
    return _to_rgb(ImageOps.exif_transpose(image) if exif else image, str(source))


def read_label(pair: Pair, domain: Domain) -> LabelMap:
    """The label map of a pair, (H, W) uint8, 255 ignored. Raises `DataError` on values that mean nothing."""
    encoding = domain.encoding(pair.encoding)
    raw = _red_of_16_bits(pair.label) if encoding.deep else _numbers(pair.label)
    counts = np.bincount(raw.ravel(), minlength=256)
    stray = np.flatnonzero((counts > 0) & ~np.pad(encoding.known, (0, len(counts) - 256)))
    if stray.size:
        worst = int(stray[np.argmax(counts[stray])])
        others = f" and {stray.size - 1} more such values" if stray.size > 1 else ""
        raise DataError(
            f"{pair.label}: value {worst} in {counts[worst]} pixels{others} is no label of {domain.labels}; "
            f"allowed: {_ranges(np.flatnonzero(encoding.known))}; take the label files that {domain.name} comes with"
        )
    return np.asarray(encoding.table[raw], np.uint8)


class Dataset:
    """The pairs of one split of a domain, decoded on demand and kept in memory while they fit.

    root: the domain's folder or the one above it. count: the first so many pairs, None all. memory: how many bytes of
    decoded pictures are kept.
    """

    def __init__(self, domain: Domain, root: Path, split: str, count: int | None = None, memory: int = MEMORY) -> None:
        self.domain = domain
        self.split = split
        self.labels = label_space(domain.labels)
        self.pairs = domain.pairs(Path(root), split, count)
        self._room = memory
        self._kept: dict[int, tuple[Picture, LabelMap]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def check(self) -> None:
        """Reads up to `CHECKED` pairs spread over the split. Raises `DataError` where one cannot be trained on."""
        for index in np.linspace(0, len(self) - 1, min(len(self), CHECKED), dtype=int).tolist():
            self.read(index)

    def read(self, index: int) -> tuple[Picture, LabelMap]:
        """Image (H, W, 3) uint8, RGB, and label (H, W) uint8, 255 ignored; both read-only, of one size."""
        if index in self._kept:
            return self._kept[index]
        pair = self.pairs[index]
        image, label = read_image(pair.image, exif=False), read_label(pair, self.domain)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{pair.image} is {image.shape[1]}x{image.shape[0]}, its label {pair.label} is "
                f"{label.shape[1]}x{label.shape[0]}; one of them was turned or resized: take both from one archive"
            )
        image.setflags(write=False)
        label.setflags(write=False)
        if image.nbytes + label.nbytes <= self._room:
            self._room -= image.nbytes + label.nbytes
            self._kept[index] = image, label
        return image, label


def _open(path: Path) -> Image.Image:
    """A decoded picture."""
    with _file(path) as image:
        image.load()
        return image


def _numbers(path: Path) -> NDArray[np.uint8]:
    """The (H, W) values of a picture of one 8-bit channel."""
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise DataError(
            f"{path}: a label file holds one 8-bit number a pixel, this one is of mode {image.mode}; "
            f"take the file of class numbers, not of colours"
        )
    return np.asarray(image)  # a palette picture answers its indices, not its colours


def _red_of_16_bits(path: Path) -> NDArray[np.uint16]:
    """The (H, W) values of the first channel of a 16-bit RGB picture, of which Pillow would keep the high byte."""
    with _file(path) as image:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)  # BGR
        if pixels is None:
            image.load()  # most often knows why
            raise ValueError("OpenCV finds it damaged")
    if pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise DataError(
            f"{path}: such a label file is a 16-bit RGB picture with class numbers in red, this one has "
            f"{8 * pixels.itemsize} bits and mode {image.mode}; take the file as it is unpacked, not one of colours"
        )
    return np.asarray(pixels[..., 2], np.uint16)


@contextmanager
def _file(path: Path) -> Iterator[Image.Image]:
    """A picture, not decoded yet. Every failure of the file or of the many decoders becomes one line."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not an image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with path.open("rb") as file, Image.open(file) as image:
                _check_size(image.size, str(path))
                yield image
    except FileNotFoundError:
        raise DataError(f"there is no image {path}") from None
    except Image.DecompressionBombError:  # before Pillow tells the size
        raise DataError(f"{path} has too many pixels, {_AT_MOST}; shrink it first") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise DataError(f"{path} {'is empty' if empty else 'is no image that can be read (JPEG, PNG ...)'}") from None
    except (DataError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # broken files raise OSError, SyntaxError, ValueError, struct.error ... from within Pillow
        if isinstance(error, OSError) and error.strerror:  # the system's word, not Pillow's
            raise DataError(f"{path} cannot be read: {error.strerror}; name another file") from error
        raise DataError(f"{path} cannot be decoded: {error}; fetch the file again") from error


def _check_size(size: tuple[int, int], where: str) -> None:
    if size[0] * size[1] > PIXEL_LIMIT:
        raise DataError(f"{where} has {size[0]}x{size[1]} pixels, {_AT_MOST}; shrink it first")


def _to_rgb(image: Image.Image, where: str) -> Picture:
    _check_size(image.size, where)
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        raise DataError(f"{where} holds 32-bit numbers (mode {image.mode}), not colours; save it as 8-bit RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
    try:
        return np.array(image.convert("RGB"))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{where} is of mode {image.mode}, which has no way to RGB ({error}); save it as RGB"
        ) from error


def _from_array(array: NDArray[np.generic]) -> Picture:
    shape, kind = array.shape, array.dtype
    if kind not in (np.uint8, np.uint16):
        raise DataError(f"an image array must be uint8 (or uint16), not {kind}; turn [0, 1] into 0..255 first")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        raise DataError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {shape}")
    _check_size((shape[1], shape[0]), "the array")
    pixels = (array.astype(np.uint16) >> 8).astype(np.uint8) if kind == np.uint16 else array.astype(np.uint8)
    if len(shape) == 2 or shape[2] == 1:
        return np.repeat(pixels.reshape(*shape[:2], 1), 3, axis=2)
    if shape[2] == 4:
        return _to_rgb(Image.fromarray(pixels, "RGBA"), "the array")
    return pixels


def _ranges(values: NDArray[np.intp]) -> str:
    """Sorted numbers in words: `0..18, 255`."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
