"""What the benchmarks share: two forms of one thing timed in turn, in one process, and a peer's configuration."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def parser(doc: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """What every benchmark can be told."""
    options = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=repeats)
    return options


def arguments(doc: str | None) -> argparse.Namespace:
    """The command line of a benchmark that asks for nothing else."""
    given = parser(doc).parse_args()
    torch.set_num_threads(given.threads)
    return given


def medians(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds, after one round that does not count; in turn, so that a busy machine slows all."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def paired(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of the two in seconds."""
    found = medians({"ours": ours, "theirs": theirs}, repeats)
    return found["ours"], found["theirs"]


def compared(what: str, ours: float, theirs: float) -> float:
    """Prints one comparison; answers ours / theirs."""
    print(f"{what}: ours {1000 * ours:.0f} ms, peer {1000 * theirs:.0f} ms, ratio {ours / theirs:.2f}", flush=True)
    return ours / theirs


def peer_config(queries: int, classes: int = 19) -> Any:
    """transformers' Mask2Former at the published sizes: 256 channels, 6 and 9 layers, 12544 points."""
    from transformers import Mask2FormerConfig

    # its count of decoder layers includes the prediction before the first
    return Mask2FormerConfig(num_queries=queries, num_labels=classes, decoder_layers=10, encoder_layers=6)
