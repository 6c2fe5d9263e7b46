"""Reading weights that others published: safetensors, PyTorch files old and new, TorchScript archives.

A pickle is a program. torch reads the harmless part of most (`weights_only`); what it refuses, TorchScript archives and
files with objects of other libraries beside the tensors, `_Pickle` reads: it knows tensors, lists, tables and numbers,
and takes every other object for a table of its parts. Nothing of a file is ever called.
"""

from __future__ import annotations

import logging
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dgss.errors import WeightsError, is_out_of_memory
from dgss.towers.keys import KeyMap

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Under which name a training program keeps the weights among other things."""
_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def find_weights(place: str) -> Path:
    """The file that `place` names: a path, or `hf:owner/repo/file` of the Hugging Face hub, fetched where needed.

    Raises `WeightsError`.
    """
    if not place.startswith("hf:"):
        path = Path(place).expanduser()
        if path.is_file():
            return path
        raise WeightsError(f"no file {path}; name a file of weights, or one of the hub as hf:owner/repo/file")
    parts = place.removeprefix("hf:").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise WeightsError(f"{place!r} names no file of the hub; write hf:owner/repo/file")
    from huggingface_hub import hf_hub_download

    with fetching(place, "download it yourself and give its path"):
        return Path(hf_hub_download("/".join(parts[:2]), parts[2]))


@contextmanager
def fetching(what: str, advice: str) -> Iterator[None]:
    """For a download by huggingface_hub: what goes wrong is told once, by a `WeightsError`, not at every try."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # whatever stands between us and the hub
        raise not_fetched(what, error, advice) from error
    finally:
        hub.setLevel(level)


def not_fetched(what: str, error: Exception, advice: str) -> WeightsError:
    """For what could not be had over the network, whatever the reason: one line."""
    reason = shorten(str(error), 200, placeholder=" ...") or type(error).__name__
    return WeightsError(f"{what} cannot be fetched ({reason}); {advice}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a published file by name, on the CPU, as they are stored. Raises `WeightsError`."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] != b"{" and head.lstrip()[:1] == b"<":  # the eight bytes before may be any number
        raise WeightsError(
            f"{path} is a web page, not weights: its server wants a click or a login; download it in a browser"
        )
    try:
        tensors = dict(_named(_unwrapped(_read(path, head))))
    except Exception as error:  # there is no end to what a damaged file may raise
        if is_out_of_memory(error):
            raise
        if re.search(
            "(unsupported|allowed) global", str(error), re.IGNORECASE
        ):  # of the old format, which `_Pickle` does not read
            raise WeightsError(
                f"{path} holds more than tensors, in PyTorch's old format; save its state_dict alone"
            ) from error
        raise WeightsError(_damaged(path)) from error
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; give the file that holds the model's state_dict")
    return tensors


def check_fit(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    complaint: str,
    unknown: Sequence[str] = (),
    said: Callable[[str], str] = str,
) -> None:
    """Every name and shape must be equal. Raises `WeightsError` that begins with `complaint` and names what is not.

    unknown: names that the file has and nobody knows. said: how one of our names is told.
    """
    shapes = [
        f"{said(name)} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    faults = {
        "missing": [said(name) for name in sorted(wanted.keys() - given.keys())],
        "unexpected": sorted({*map(said, given.keys() - wanted.keys()), *unknown}),
        "of another shape": shapes,
    }
    found = [f"{len(names)} {kind} ({few(names)})" for kind, names in faults.items() if names]
    if found:
        raise WeightsError(f"{complaint}: {'; '.join(found)}")


def named_as_in(held: Mapping[str, str], keys: KeyMap) -> Callable[[str], str]:
    """How our names are told to the owner of a published file: `theirs -> ours`.

    held: its names and ours. What it lacks is named as its neighbours are, whose names differ from it in one part.
    """
    back = {ours: theirs for theirs, ours in held.items()}
    near: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for ours, theirs in back.items():
        for part, others in _apart(ours):
            near.setdefault(others, []).append((theirs, part))

    def candidates(ours: str) -> Iterator[str]:
        if ours in back:
            yield back[ours]
        for new, others in _apart(ours):
            for theirs, old in near.get(others, ()):
                for place in re.finditer(re.escape(old), theirs):
                    yield theirs[: place.start()] + new + theirs[place.end() :]
        yield from (rule[0].replace("\\", "") for rule in keys.rules if rule[1] == ours)

    def said(ours: str) -> str:
        for theirs in candidates(ours):
            if not keys.unknown([theirs]) and keys.name(theirs) == ours:
                return f"{theirs} -> {ours}"
        return f"{ours} (our name)"

    return said


def _apart(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each part of a dotted name with the name without it."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        yield part, (*parts[:place], "", *parts[place + 1 :])


def few(names: Sequence[str], shown: int = 5) -> str:
    """The first ones, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _damaged(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} ({size:,} bytes) is cut off, damaged or no file of weights; download it again"


def _read(path: Path, head: bytes) -> Any:
    if head[8:9] == b"{":
        return load_file(path)
    if head[:2] != b"PK":  # before PyTorch 1.6
        return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        script = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if not script:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch doubts some pickle protocols; what it refuses is read below
                    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:
                if "Unsupported" not in str(error) and "weights_only" not in str(error).lower():
                    raise
        return _Pickle(archive).value()


def _unwrapped(content: Any) -> Any:
    """The table of weights within what a training program saved."""
    for _ in range(len(_WRAPPERS)):  # a table may hold itself
        if not isinstance(content, Mapping):
            break
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    return content


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested tables by dotted name."""
    if isinstance(value, Tensor) and name:
        yield name.removeprefix("module."), value  # of a model that was trained on several devices
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named(part, f"{name}.{key}" if name else str(key))


class _Object(dict[Any, Any]):
    """An object of whatever class: the table of its parts. What a list or a set would take in is let go."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key of a table

    def append(self, item: Any) -> None:
        """Lets it go."""

    def extend(self, items: Any) -> None:
        """Lets them go."""


@dataclass
class _Pickle:
    """Follows the pickle `data.pkl` of a PyTorch archive step by step and calls nothing it names."""

    archive: zipfile.ZipFile
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    storages: dict[str, bytearray] = field(default_factory=dict)
    folder: str = ""

    def value(self) -> Any:
        """What the pickle says."""
        name = next(name for name in self.archive.namelist() if name.endswith("/data.pkl"))
        self.folder = name.removesuffix("data.pkl")
        for step, argument, _ in pickletools.genops(self.archive.read(name)):
            if step.name == "STOP":
                break
            known = _STEPS.get(step.name)
            if known is not None:
                known(self, argument)
            elif argument is not None:  # text, bytes and numbers
                self.stack.append(argument)
            else:
                raise ValueError(f"the step {step.name} stands in no file of weights")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """What stands above the last mark, taken off."""
        mark = self.marks.pop()
        found, self.stack[mark:] = self.stack[mark:], []
        return found

    def tuple_of(self, count: int) -> None:
        found, self.stack[-count:] = tuple(self.stack[-count:]), []
        self.stack.append(found)

    def set_items(self, items: list[Any]) -> None:
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(state, Mapping) and isinstance(self.stack[-1], dict):
            self.stack[-1].update(state)

    def make(self) -> None:
        """A call: of a tensor from its storage, else an object of nothing yet."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if called == "torch._utils _rebuild_tensor_v2" and _dtype(arguments[0]) is not None:
            self.stack.append(self.tensor(*arguments[:4]))
        elif called == "torch._utils _rebuild_parameter":
            self.stack.append(arguments[0])
        else:
            self.stack.append(_Object())

    def tensor(self, storage: tuple[Any, ...], offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """A view of a storage, which is read once, however many tensors share it."""
        key, dtype = storage[2], _dtype(storage) or torch.float32
        if 0 in size:
            return torch.empty(size, dtype=dtype)
        if key not in self.storages:
            name = f"{self.folder}data/{key}"
            if self.archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # torch packs no tensor; a bomb does
                raise ValueError(f"{name} is compressed")
            self.storages[key] = bytearray(self.archive.read(name))
        return torch.frombuffer(self.storages[key], dtype=dtype).as_strided(size, stride, offset)


def _dtype(storage: tuple[Any, ...]) -> torch.dtype | None:
    """Of the numbers in a storage; None for kinds that no weights are of."""
    return _DTYPES.get(str(storage[1]).rpartition(" ")[2])


Step = Callable[[_Pickle, Any], object]
_PUT: Step = lambda machine, place: machine.memo.update({int(place): machine.stack[-1]})  # noqa: E731
_GET: Step = lambda machine, place: machine.stack.append(machine.memo[int(place)])  # noqa: E731
_STEPS: dict[str, Step] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "PUT": _PUT,
    "BINPUT": _PUT,
    "LONG_BINPUT": _PUT,
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "GET": _GET,
    "BINGET": _GET,
    "LONG_BINGET": _GET,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append(_Object()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "APPEND": lambda machine, _: machine.stack[-2].append(machine.stack.pop()),
    "APPENDS": lambda machine, _: machine.stack[machine.marks[-1] - 1].extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.since_mark(),
    "GLOBAL": lambda machine, name: machine.stack.append(name),
    "STACK_GLOBAL": lambda machine, _: machine.stack.append(f"{machine.stack.pop(-2)} {machine.stack.pop()}"),
    "BINPERSID": lambda machine, _: None,  # the storage's description stays as it is
    "NEWOBJ": lambda machine, _: machine.make(),
    "REDUCE": lambda machine, _: machine.make(),
    "BUILD": lambda machine, _: machine.build(),
    "POP": lambda machine, _: machine.stack.pop(),
}
"""What each step of a pickle does; see the standard library's `pickletools`."""
