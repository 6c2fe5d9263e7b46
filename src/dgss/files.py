"""Files: atomic writing, hashes, the cache folder, the run folder with its lock."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgss.errors import DataError, DgssError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Killed at any moment, `path` holds the old content or the new, never a part. Raises `DgssError` where the folder
    cannot be written or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> DgssError:
    """The one line for a file that cannot be written, with the advice that fits the reason."""
    reason = str(error.strerror or error)  # safetensors tells the text alone, no number
    full = any(word in reason.lower() for word in ("space", "quota"))
    return DgssError(f"cannot write {path}: {reason}; {'free some space or ' if full else ''}name another place")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_tensors(path: Path, tensors: dict[str, Tensor], description: str = "") -> None:
    """Writes contiguous CPU tensors that share no memory, and a text beside them, as safetensors, atomically.

    The text is the entry `dgss` of the file's metadata, and the only one: safetensors writes several in random order.
    """
    import safetensors.torch  # inside: this file is read by what must not load torch

    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, {"dgss": description} if description else None)
        except safetensors.SafetensorError as error:  # a full disk: `atomic_path` tells it as it tells all others
            raise OSError(str(error)) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where drawn streets and statistics are kept: `DGSS_CACHE`, else the system's usual place for caches."""
    if chosen := os.environ.get("DGSS_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "dgss" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dgss"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgss"


@contextmanager
def path_errors(path: Path) -> Iterator[None]:
    """Turns what the system says of a path that cannot be looked at, such as too long a name, into a `DataError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter: `~name` of nobody
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot use {path}: {reason}; name another place") from error


def check_place(path: Path) -> None:
    """Raises `DataError` where nothing can be written at `path`, as far as that can be seen without writing."""
    with path_errors(path):
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"cannot write {path}: {there} is no folder that you may write in; name another place")


def check_result_file(file: str) -> Path:
    """The path of a file for a result. Raises `DataError` where it may not be written, before time is spent on it."""
    path = Path(file)
    with path_errors(path):
        path = path.expanduser()
        if path.suffix not in (".json", ".html"):
            raise DataError(f"{path}: the result is written as .json (numbers) or .html (a page); name such a file")
        if path.exists():
            raise DataError(f"{path} exists; name another file, nothing is overwritten")
    check_place(path)
    return path


def usable_cores() -> int:
    """How many cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_LEFT_OVER = 600  # seconds after which a temporary file that nobody wrote to belongs to a process that died
_POLL = 0.2  # seconds between two looks at a lock


class FolderLock:
    """Lets one process at a time write in a folder; freed when its block ends or its process dies.

    wait: whether to wait for another process; else the folder in use is a `DgssError`. Files that dead processes left
    half written in the folder are removed.
    """

    def __init__(self, folder: Path, wait: bool = False) -> None:
        self.path = Path(folder) / ".lock"
        self.wait = wait

    def __enter__(self) -> FolderLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise DataError(
                f"cannot write in {self.path.parent}: {error.strerror or error}; name another folder"
            ) from error
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise
        _remove_left_overs(self.path.parent)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # closing frees the lock; the empty file stays, since removing it would race

    def _lock(self) -> None:
        with path_errors(self.path):
            while not _try_lock(self._file.fileno()):
                if not self.wait:
                    raise DgssError(f"{self.path.parent} is in use by another process; wait or name another folder")
                time.sleep(_POLL)


RUNS = Path("runs")
"""Where the run of a recipe lies unless another folder is named."""


class RunFolder:
    """The folder of a training run, and what lies where in it."""

    def __init__(self, path: Path) -> None:
        with path_errors(path):
            self.path = Path(path).expanduser()
        self.recipe = self.path / "recipe.yaml"
        self.preview = self.path / "preview.png"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "model.safetensors"
        self.predictions = self.path / "predictions"
        self.page = self.path / "report.html"
        self.scores = self.path / "report.json"

    def picture(self, domain: str) -> Path:
        """The predictions on a domain."""
        return self.predictions / f"{domain}.png"

    def finished(self, domains: Iterable[str]) -> bool:
        """Whether training and scoring on `domains` have ended and all that they wrote is still there."""
        return all(path.is_file() for path in (self.weights, self.scores, self.page, *map(self.picture, domains)))

    def forget_scores(self) -> None:
        """Removes what an earlier scoring wrote; the numbers first, since they say that all is there."""
        with path_errors(self.path):
            for path in (self.scores, self.page, *self.predictions.glob("*.png")):
                path.unlink(missing_ok=True)

    def read_scores(self) -> dict[str, Any]:
        """What `report.json` holds. Raises `DataError` where that is no result of a run."""
        try:
            scores = json.loads(self.scores.read_text(encoding="utf-8"))
            if not isinstance(scores, dict):
                raise ValueError("it should hold names and numbers")
            for key in ("source", "mean", "rpd"):
                if not isinstance(scores.get(key), int | float | None):
                    raise ValueError(f"its {key} is no number")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.scores} cannot be read ({error}); remove it and train with --resume") from error
        return scores

    def how_to_go_on(self) -> str:
        """The command that takes up a stopped run, as a person types it."""
        path = str(self.path)
        quoted = subprocess.list2cmdline([path]) if sys.platform == "win32" else shlex.quote(path)
        return f"go on with: dgss train --resume --out {quoted}"

    def begun(self, resume: bool) -> bool:
        """Whether a run in here is to go on; raises where none may begin, or with `resume` none is there to go on."""
        with path_errors(self.path):
            there = self.path.is_dir()
            if self.path.exists() and not there:
                raise DataError(f"{self.path} is a file, not a folder; name another with --out")
            if resume and not self.recipe.is_file():
                why = "no recipe.yaml in it" if there else "there is no such folder"
                raise DataError(
                    f"{self.path} holds no run to go on with ({why}); name the folder of a run with --out, "
                    f"or leave --resume out to begin one"
                )
            if not there or self._is_free():
                return False
        if not resume:
            raise DgssError(f"{self.path} is not empty; go on in it with --resume, or name another folder with --out")
        return True

    @property
    def trained(self) -> bool:
        """Whether there is anything in here that took training to make."""
        return self.weights.exists() or any(self.checkpoints.glob("*.json"))

    def _is_free(self) -> bool:
        """Whether the folder is empty but for what a run leaves that failed before its first checkpoint."""
        left = {entry.name for entry in self.path.iterdir() if not _is_ours(entry)}
        early = {path.name for path in (self.recipe, self.preview, self.metrics, self.checkpoints)}
        # the lock tells such a recipe from one that a person keeps here
        return not left or (left <= early and (self.path / ".lock").exists() and not self.trained)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_ours(entry: Path) -> bool:
    """Whether a file is one that killed processes leave: the lock, or a temporary file of `atomic_path`."""
    return entry.name == ".lock" or (entry.name.startswith(".") and entry.suffix == ".part")


def _remove_left_overs(folder: Path) -> None:
    for pattern in (".*.part", "*/.*.part"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER:
                    path.unlink()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
