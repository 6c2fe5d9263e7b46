"""Worker processes for drawing: fresh interpreters that read a job and answer with each seed they have written.

They are started by command, not by forking or by importing the caller's script again, so they work the same from a
script, a notebook, a test or a thread, on every system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO

import cv2

from dgss.errors import DgssError
from dgss.streets.write import Job

_FORESEEN = 3  # the exit code of a worker whose last line on standard error is a message of ours


def draw_in_processes(job: Job, seeds: list[int], processes: int) -> Iterator[int]:
    """Writes the images of these seeds in that many processes; yields each seed when its files are written."""
    answers: Queue[int | None] = Queue()
    running = [_start(job, seeds[number::processes]) for number in range(processes)]
    try:
        for process in running:
            assert process.stdout is not None
            Thread(target=_listen, args=(process.stdout, answers), daemon=True).start()
        open_ends = processes
        while open_ends:
            seed = answers.get()
            if seed is None:
                open_ends -= 1
            else:
                yield seed
        for process in running:
            _finish(process)
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _start(job: Job, seeds: list[int]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dgss.streets.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert process.stdin is not None
    order = {"folder": str(job.folder), "look": job.look, "split": job.split, "size": list(job.size), "seeds": seeds}
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    process.stdin = None
    return process


def _listen(stream: IO[str], answers: Queue[int | None]) -> None:
    for line in stream:
        answers.put(int(line))
    answers.put(None)


def _finish(process: subprocess.Popen[str]) -> None:
    """Waits for the end of a process; raises what it died of."""
    assert process.stderr is not None
    told = process.stderr.read().strip().splitlines()
    if process.wait() == _FORESEEN:
        raise DgssError(told[-1])
    if process.returncode == -9:
        raise DgssError("a process that draws streets was killed, often for lack of memory; lower drawn.size")
    if process.returncode:
        reason = told[-1] if told else f"exit code {process.returncode}"
        raise DgssError(f"a process that draws streets failed: {reason}; draw with workers=0 to see where")


def main() -> None:
    """The worker: reads one order from standard input, writes each seed to standard output when it is done."""
    cv2.setNumThreads(1)
    order = json.load(sys.stdin)
    job = Job(Path(order["folder"]), order["look"], order["split"], (order["size"][0], order["size"][1]))
    for seed in order["seeds"]:
        try:
            job.write(seed)
        except DgssError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(_FORESEEN)
        sys.stdout.write(f"{seed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
