"""`dgss convert` on files that cannot be converted: one line, exit code 1, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dgss.cli import app

KEYS = {
    "sem_seg_head.predictor.query_feat.weight": "is a checkpoint of detectron2, which is not read yet",
    "decode_head.query_feat.weight": "is a Mask2Former or VLTSeg checkpoint, which is not read yet",
    "backbone.reins.scale": "is a checkpoint of Rein, which is not read yet",
    "reins.scale": "is the adapter file of Rein, which is not read yet",
    "visual.conv1.weight": "is a pair of towers alone: name it as tower.weights of a recipe",
    "tower.projection.weight": "is weights of this package, which need no conversion",
    "layer1.0.conv1.weight": "is no checkpoint that is known here (it holds layer1.0.conv1.weight ...)",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_file_of_another_system_is_called_by_its_name(key: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {key: torch.zeros(1)}}, tmp_path / "a.pth")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and KEYS[key] in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"), [(b"<html>", "is a web page"), (b"PK\x03\x04", "is cut off"), (b"", "is cut off")]
)
def test_a_file_that_is_none_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and words in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("error:")]) == 1


def test_no_file_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "absent.pth")])
    assert result.exit_code == 1 and "no file" in result.output
