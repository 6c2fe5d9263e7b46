"""Every foreseen failure: one line that says what, where and how to mend it.

The command line prints that line and ends with exit code 1; `--debug` shows the traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

# how the allocators of torch, for CPU, CUDA and MPS, say it in plain RuntimeErrors, OpenCV in an error of its own, and
# how a killed worker of a loader shows
_NO_MEMORY = re.compile(
    r"(out of|allocate|not enough|insufficient) (shared )?memory|alloc_failed|DataLoader worker", re.IGNORECASE
)


class DgssError(Exception):
    """The family of every foreseen failure."""


class RecipeError(DgssError):
    """A recipe, or an override of one, is wrong. Holds every fault found, one a line."""


class DataError(DgssError):
    """An image, a label or a data root is missing, unreadable or not what it should be."""


class WeightsError(DgssError):
    """A file of weights is missing, corrupt or belongs to another model."""


class DeviceError(DgssError):
    """A device is absent or out of memory."""


class OptionalPackageError(DgssError):
    """A package outside the core is needed: the message names the extra that brings it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says "out of memory", of any device and by any library."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def nearest(name: str, known: Iterable[str], title: str = "known") -> str:
    """The end of an error line for an unknown name, e.g. `did you mean 'tqdm-mini-streets'?`.

    title: stands before all that is known, where nothing is near.
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return f"{title}: {', '.join(names)}"
