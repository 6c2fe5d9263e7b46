"""What is freed stays with the process inside the block and goes back at its end."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from dgss.training.devices import memory_kept

STATUS = Path("/proc/self/status")


def held() -> int:
    """Megabytes of main memory that this process holds."""
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not STATUS.exists(), reason="glibc on Linux alone does it")
def test_memory_is_kept_for_the_next_step_and_given_back() -> None:
    before = held()
    with memory_kept():
        for _ in range(2):
            big = torch.ones(60, 1024, 1024)  # 240 MB
            assert held() > before + 200
            del big
        assert held() > before + 200, "kept"
    assert held() < before + 100, "given back"
    big = torch.ones(60, 1024, 1024)
    del big
    assert held() < before + 100, "and so it goes on"
