"""Files that others published: what they hold is read, nothing in them is run, what is wrong is told in a line."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dgss.errors import WeightsError
from dgss.towers.published import find_weights, read_tensors


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.attention(x, x, x)[0])


class Small(nn.Module):
    """As OpenAI's archives: modules in modules, a parameter of its own, a number, a turned tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Part(), Part())
        self.turned = nn.Parameter(torch.arange(24.0).view(4, 6).T)
        self.input_resolution = 32

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


def script(path: Path, half: bool = True) -> dict[str, Tensor]:
    """Saves a TorchScript archive; answers what it holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(Small(), torch.rand(1, 3, 8))
        module = module.half() if half else module
        torch.jit.save(module, path)
    return dict(module.state_dict())


class Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("half", [True, False])
def test_a_torchscript_archive_is_read_without_torch_running_it(
    tmp_path: Path, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = script(tmp_path / "model.pt", half)
    for name in ("load", "jit.load"):
        monkeypatch.setattr(f"torch.{name}", lambda *_, **__: pytest.fail("torch was asked to run the file"))
    ours = read_tensors(tmp_path / "model.pt")
    assert ours.keys() == theirs.keys() and len(ours) == 13
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name


def test_objects_of_other_programs_beside_the_tensors_do_no_harm_and_no_hindrance(tmp_path: Path) -> None:
    weights = {"module.a": torch.randn(3, 4).T, "b": nn.Parameter(torch.ones(2)), "empty": torch.empty(0, 3)}
    meta = {"trap": Trap(tmp_path / "trapped"), "numbers": (1, 2.5, None, True), "list": [[1], {"x": 2}]}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {0: torch.ones(3)}}}, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth")
    assert found.keys() == {"a", "b", "empty"} and torch.equal(found["a"], weights["module.a"])
    assert torch.equal(found["b"], torch.ones(2)) and found["empty"].shape == (0, 3)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    """More than 64 KB of pickle, which protocols 4 and 5 write in frames."""
    shared = torch.arange(12.0).view(3, 4)
    weights = {f"part{number}.weight": torch.full((2,), float(number)) for number in range(1500)}
    weights |= {"whole": shared, "row": shared[1], "turned": shared.T, "half": torch.ones(3, dtype=torch.bfloat16)}
    others = {
        "trap": Trap(tmp_path / "x"),
        "many": deque([1, 2]),
        "some": {1, 2},
        "odd": torch.ones(2, dtype=torch.cfloat),
    }
    torch.save({"others": others, "model": weights}, tmp_path / "a.pth", pickle_protocol=protocol)
    found = read_tensors(tmp_path / "a.pth")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in weights.items())
    assert found["row"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_a_table_that_holds_itself_ends(tmp_path: Path) -> None:
    table: dict[str, Any] = {}
    table["model"] = table
    torch.save(table, tmp_path / "a.pth")
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "a.pth")


def test_a_header_that_looks_like_a_page_is_none(tmp_path: Path) -> None:
    """The length that a safetensors file begins with may be the bytes ` <`."""
    path, size = tmp_path / "a.safetensors", 0x3C20
    save_file({"a": torch.ones(2)}, path)
    content = path.read_bytes()
    old = int.from_bytes(content[:8], "little")
    path.write_bytes(size.to_bytes(8, "little") + content[8 : 8 + old].ljust(size) + content[8 + old :])
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))


def test_more_than_tensors_in_the_old_format_is_told(tmp_path: Path) -> None:
    torch.save(
        {"model": {"a": torch.ones(2)}, "trap": Trap(tmp_path / "x")},
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=False,
    )
    with pytest.raises(WeightsError, match=r"holds more than tensors, in .*old format; save its state_dict alone"):
        read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "x").exists()


def test_plain_files_of_every_kind_are_read(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(weights, tmp_path / "new.pth")
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "safe.bin")
    for name in ("new.pth", "old.pth", "safe.bin"):
        found = read_tensors(tmp_path / name)
        assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights), name


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["script", "new", "old", "safe"])
def test_a_file_that_is_cut_off_is_told_in_one_line(tmp_path: Path, kind: str, share: float) -> None:
    path, weights = tmp_path / kind, {"a": torch.randn(40, 40)}
    if kind == "script":
        script(path)
    elif kind == "safe":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "new")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="is cut off, damaged or no file of weights; download it again") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>...", b"\n <html lang='en'>"])
def test_a_web_page_saved_as_weights_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.pth is a web page, not weights"):
        read_tensors(path)


def test_a_file_without_tensors_is_told(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "losses": [1.0]}, tmp_path / "log.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_tensors(tmp_path / "log.pth")


def test_packed_tensors_are_refused(tmp_path: Path) -> None:
    """torch packs none: a small file that unpacks to gigabytes is a trap."""
    script(tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as old, zipfile.ZipFile(tmp_path / "packed.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(tmp_path / "packed.pt")


def test_a_place_that_names_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)  # else caplog hears nothing
    with pytest.raises(WeightsError, match=r"no file .*absent\.pt; name a file of weights, or one of the hub"):
        find_weights(str(tmp_path / "absent.pt"))
    with pytest.raises(WeightsError, match="'hf:owner/repo' names no file of the hub; write hf:owner/repo/file"):
        find_weights("hf:owner/repo")

    def offline(repo: str, file: str) -> str:
        raise ConnectionError(f"no way to\n{repo} {file}")

    def retrying(repo: str, file: str) -> str:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no network " * 100)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", retrying)
    with pytest.raises(WeightsError, match=r"\((no network )+(no )?\.\.\.\); download it yourself") as caught:
        find_weights("hf:o/r/a/b.pt")
    assert len(str(caught.value)) < 300 and not caplog.records
    logging.getLogger("huggingface_hub.utils._http").warning("other calls are heard")
    assert len(caplog.records) == 1
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(WeightsError, match=r"hf:o/r/a/b\.pt cannot be fetched \(no way to o/r a/b\.pt\); download it"):
        find_weights("hf:o/r/a/b.pt")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file: str(tmp_path / file))
    assert find_weights("hf:o/r/b.pt") == tmp_path / "b.pt"
