"""A file that is no published checkpoint, given to `convert`, `predict` or `evaluate`: one line, nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dgss.api.load import load_model
from dgss.cli import app
from dgss.errors import DataError, WeightsError

KEYS = {
    "sem_seg_head.predictor.query_feat.weight": "is a checkpoint of detectron2, which is not read yet",
    "decode_head.query_feat.weight": "is a Mask2Former or VLTSeg checkpoint, which is not read yet",
    "backbone.reins.scale": "is a checkpoint of Rein, which is not read yet",
    "reins.scale": "is the adapter file of Rein, which is not read yet",
    "visual.conv1.weight": "is a pair of towers alone: name it as tower.weights of a recipe",
    "tower.projection.weight": "is weights of this package, which need no conversion",
    "layer1.0.conv1.weight": "is no checkpoint that is known here (it holds layer1.0.conv1.weight ...)",
}
CONTENTS = {
    "is a web page, not weights": b"<html>",
    "(4 bytes) is cut off, damaged or no file of weights; download it again": b"PK\x03\x04",
    "(0 bytes) is cut off, damaged or no file of weights; download it again": b"",
}


def refused(folder: Path, words: str) -> None:
    """Every command that takes `a.pth` ends with exit code 1 and the same line, and leaves nothing behind."""
    file, out = str(folder / "a.pth"), ("--out", str(folder / "out"))
    commands = (
        ("convert", file, *out),
        ("predict", file, str(folder / "a.png"), *out),
        ("evaluate", file, "--targets", "camvid"),
    )
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "a.png")
    before, lines = set(folder.rglob("*")), set()
    for command in commands:
        result = CliRunner().invoke(app, command)
        told = [line for line in result.output.splitlines() if line.startswith("error:")]
        assert result.exit_code == 1 and len(told) == 1 and words in told[0], result.output
        lines.update(told)
    assert len(lines) == 1 and set(folder.rglob("*")) == before


@pytest.mark.parametrize("key", KEYS)
def test_a_file_of_another_system_is_called_by_its_name(key: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {key: torch.zeros(1)}}, tmp_path / "a.pth")
    refused(tmp_path, KEYS[key])


@pytest.mark.parametrize("words", CONTENTS)
def test_a_file_that_is_none_is_told(words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(CONTENTS[words])
    refused(tmp_path, words)


def test_no_file_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "absent.pth")])
    assert result.exit_code == 1 and "no file" in result.output
    with pytest.raises(WeightsError, match="is no run and no file of weights"):
        load_model(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="names no file of the hub; write hf:owner/repo/file"):
        load_model("hf:owner/file.pth")


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    monkeypatch.setattr("dgss.api.load.safe_open", refuse)
    with pytest.raises(DataError, match=r"cannot use .*a\.pth: Permission denied; name another place"):
        load_model(tmp_path / "a.pth")
