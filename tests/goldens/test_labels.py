"""Label files in the official encodings against what the reference converters make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from load import Golden

from dgss.data.dataset import read_label
from dgss.data.domains import Pair, domain

pytestmark = pytest.mark.golden("labels")


@pytest.mark.parametrize("name", ["gta5", "synthia", "cityscapes"])
def test_a_label_file_as_it_is_shipped(golden: Golden, name: str, tmp_path: Path) -> None:  # mutation: two ids swapped
    file = tmp_path / "label.png"
    file.write_bytes(golden.input(f"{name}.file").astype(np.uint8).tobytes())
    found = read_label(Pair("label", file, file, "ids"), domain(name))
    golden.check(f"{name}.train_ids", found)
    assert found.dtype == np.uint8
    assert name != "synthia" or (found != golden.array("synthia.pil_reads")[..., 0]).any()
