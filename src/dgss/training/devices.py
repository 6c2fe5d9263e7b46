"""Devices: which one, how many threads, how much memory, and its random state during a step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import cv2
import numpy as np
import torch

from dgss.errors import DeviceError, is_out_of_memory, nearest

KINDS = ("auto", "cpu", "cuda", "mps")

_STATUS = Path("/proc/self/status")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_STEP = 3  # what the draws are for, apart from order, augmentation and loss points (`data/loader.py`)


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, else the CPU; `cuda:1`, `mps`, `cpu` are taken at their word.

    Raises `DeviceError` where the device is not there.
    """
    if not isinstance(name, str):
        raise DeviceError(f"device is {name!r}; it should be a name such as 'cpu'")
    kind, _, number = name.partition(":")
    if kind not in KINDS or (number and not number.isdigit()):
        raise DeviceError(f"no device is called {name!r}: {nearest(kind, KINDS)}")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= there:
        raise DeviceError(f"device {name!r} is not there (torch sees {there} of kind {kind}); use device auto or cpu")
    return torch.device(name)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Lets torch use `count` threads inside the block; None leaves its own choice, all cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_kept() -> Iterator[None]:
    """What is freed inside the block stays with the process until its end, for the next step needs as much again.

    On a CPU, giving pages back and getting them anew costs a step of a large model 5 to 10 % of its time. It needs
    glibc; elsewhere nothing happens.
    """
    try:
        library = ctypes.CDLL(None)
        tune, trim = library.mallopt, library.malloc_trim
    except (OSError, TypeError, AttributeError):
        yield
        return
    tune(_MMAP_MAX, 0)
    tune(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # glibc's own values
        tune(_MMAP_MAX, 65536)
        tune(_TRIM_THRESHOLD, 128 * 1024)
        trim(0)


@contextmanager
def random_of_step(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Makes what a model draws (dropout, drop path) a pure function of (seed, step); the state outside is untouched."""
    key = int(np.random.SeedSequence([seed, step, _STEP]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(devices=[]), _drawn_on(device, key):
        # `torch.manual_seed` would seed every other device, too, and nobody would put those back
        torch.default_generator.manual_seed(key)
        yield


@contextmanager
def _drawn_on(device: torch.device, seed: int) -> Iterator[None]:
    """A device with a random state of its own starts from `seed` inside the block and goes on as before after it."""
    if device.type == "cuda":
        with torch.random.fork_rng([device], device_type="cuda"):
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
            yield
    elif device.type == "mps":  # `fork_rng` of older torch does not know it
        before = torch.mps.get_rng_state()
        try:
            torch.mps.manual_seed(seed)
            yield
        finally:
            torch.mps.set_rng_state(before)
    else:
        yield


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turns "out of memory" into a `DeviceError` that carries `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
        if not is_out_of_memory(error):
            raise
        reason = shorten(str(error), 150, placeholder=" ...")
        raise DeviceError(f"out of memory{f' ({reason})' if reason else ''}: {advice}") from error


def peak_memory() -> float:
    """The largest main memory the main process has held so far, in gigabytes (10^9 bytes).

    The processes that prepare batches (`training.workers`) and the memory of a GPU do not count.
    """
    if _STATUS.exists():  # Linux; `resource` would count what the parent held before it started us
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM"):  # some sandboxes leave it out
                return int(line.split()[1]) * 1024 / 1e9
    if sys.platform == "win32":
        return _peak_windows() / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _peak_windows() -> int:
    """`PeakWorkingSetSize` of this process, in bytes."""
    counters = (ctypes.c_size_t * 10)()  # PROCESS_MEMORY_COUNTERS: two 32-bit fields, then sizes; [1] is the peak
    library = ctypes.CDLL("psapi")
    process = ctypes.c_void_p(-1)  # "this process"
    library.GetProcessMemoryInfo(process, ctypes.byref(counters), ctypes.sizeof(counters))
    return int(counters[1])
