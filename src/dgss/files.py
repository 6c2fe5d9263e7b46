"""Files: atomic writing, hashes, the cache folder, the run folder with its lock."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
        raise DgssError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another place"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_tensors(path: Path, tensors: dict[str, Tensor], description: dict[str, str] | None = None) -> None:
    """Writes contiguous CPU tensors that share no memory, and texts beside them, as safetensors, atomically."""
    import safetensors.torch  # inside: this file is read by what must not load torch

    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, description)
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
    except OSError as error:
        raise DataError(f"cannot use {path}: {error.strerror or error}; name another place") from error


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


class RunFolder:
    """The folder of a training run, and what lies where in it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).expanduser()
        self.recipe = self.path / "recipe.yaml"
        self.preview = self.path / "preview.png"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "model.safetensors"
        self.predictions = self.path / "predictions"
        self.page = self.path / "report.html"
        self.scores = self.path / "report.json"

    @property
    def finished(self) -> bool:
        """Whether training and scoring have ended."""
        return self.weights.is_file() and self.scores.is_file()

    def begun(self, resume: bool) -> bool:
        """Whether a run in here is to go on; raises where none may begin, or with `resume` none is there to go on."""
        with path_errors(self.path):
            if self.path.is_file():
                raise DataError(f"{self.path} is a file, not a folder; name another with --out")
            if not self.path.is_dir() or self._nothing_trained():
                return False
        if not resume:
            raise DgssError(f"{self.path} is not empty; go on in it with --resume, or name another folder with --out")
        if not self.recipe.is_file():
            raise DataError(f"{self.path} holds no run (no recipe.yaml); name another folder with --out")
        return True

    def _nothing_trained(self) -> bool:
        """Whether the folder is empty but for what a run leaves that failed before its first checkpoint."""
        left = {entry.name for entry in self.path.iterdir() if not _is_ours(entry)}
        # the lock tells such a recipe from one that a person keeps here
        return not left or (left <= {self.recipe.name, self.preview.name} and (self.path / ".lock").exists())


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
