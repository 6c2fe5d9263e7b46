"""What this machine offers, and what stands in the way of a training on it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from dgss.errors import DgssError
from dgss.files import cache_folder, usable_cores, write_text

CORE = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "opencv-python-headless", "pillow", "pydantic")
EXTRAS = {
    "serve": ("fastapi", "uvicorn"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "analysis": ("sklearn",),
    "track": ("tensorboard",),
    "ray": ("ray",),
    "video": ("imageio",),
    "hf": ("datasets",),
}
_MEMORY_NEEDED, _DISK_NEEDED = 4e9, 1e9  # bytes; what the default training takes at most


@dataclass(frozen=True)
class Finding:
    """One line of the examination. advice: what to do, empty where all is well. serious: nothing works without it."""

    topic: str
    value: str
    advice: str = ""
    serious: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """Everything found."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing serious was found."""
        return not any(finding.serious for finding in self.findings)

    def table(self) -> str:
        """One line a finding, advice below it."""
        width = max(len(finding.topic) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.topic:<{width}}  {finding.value}")
            if finding.advice:
                lines.append(f"{'':<{width}}  {'PROBLEM' if finding.serious else 'note'}: {finding.advice}")
        lines.append("all is well" if self.healthy else "not ready: see the lines marked PROBLEM")
        return "\n".join(lines)


def doctor() -> Diagnosis:
    """Versions, device, memory, cores, extras, write access; one line of advice a problem."""
    checks: tuple[Callable[[], list[Finding]], ...] = (_versions, _device, _machine, _extras, _folders)
    return Diagnosis(tuple(finding for check in checks for finding in check()))


def _versions() -> list[Finding]:
    old = sys.version_info < (3, 11)
    findings = [Finding("Python", platform.python_version(), "Python 3.11 or newer is needed" if old else "", old)]
    for name in ("dgss", *CORE):
        try:
            findings.append(Finding(name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing", f"run `pip install {name}`", serious=name != "dgss"))
    return findings


def _device() -> list[Finding]:
    try:
        import torch
        import torchvision  # noqa: F401 - a torchvision that was built for another torch fails here
    except (ImportError, OSError, RuntimeError) as error:
        advice = "install torch and torchvision again, both from one place: `pip install --force-reinstall dgss`"
        return [Finding("device", f"torch cannot be loaded ({error})", advice, serious=True)]
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return [Finding("device", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GB")]
    driver = shutil.which("nvidia-smi") is not None
    advice = "a GPU driver is there but torch sees no GPU: install a torch build that fits the driver" if driver else ""
    return [Finding("device", "cpu (no GPU that torch can use)", advice)]


def _machine() -> list[Finding]:
    cores, memory = usable_cores(), _memory()
    findings = [
        Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Finding("cores", str(cores), "with one core the default training takes twice as long" if cores < 2 else ""),
    ]
    if memory is not None:
        few = memory < _MEMORY_NEEDED
        advice = (
            f"the default training takes up to {_MEMORY_NEEDED / 1e9:.0f} GB: lower training.batch_size" if few else ""
        )
        findings.append(Finding("memory", f"{memory / 1e9:.1f} GB", advice))
    return findings


def _extras() -> list[Finding]:
    there = {extra: all(util.find_spec(name) for name in packages) for extra, packages in EXTRAS.items()}
    absent = [extra for extra, found in there.items() if not found]
    findings = [Finding("extras", ", ".join(extra for extra, found in there.items() if found) or "none")]
    if absent:
        findings.append(Finding("extras not there", f"{', '.join(absent)} (`pip install dgss[NAME]` where needed)"))
    return findings


def _folders() -> list[Finding]:
    return [
        _writable("cache", cache_folder(), "set DGSS_CACHE to a folder you may write in"),
        _writable("current folder", Path.cwd(), "change to a folder you may write in, or name one with --out"),
    ]


def _writable(topic: str, folder: Path, advice: str) -> Finding:
    probe = folder / f".dgss-doctor-{os.getpid()}"
    try:
        write_text(probe, "x")
        probe.unlink()
    except (DgssError, OSError) as error:
        return Finding(topic, f"{folder}: {error}", advice, serious=True)
    free = shutil.disk_usage(folder).free
    few = (
        f"only {free / 1e9:.1f} GB are free, a run takes up to {_DISK_NEEDED / 1e9:.0f} GB"
        if free < _DISK_NEEDED
        else ""
    )
    return Finding(topic, f"{folder} ({free / 1e9:.0f} GB free)", few)


def _memory() -> float | None:
    """Main memory in bytes; None where the system does not say."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if sys.platform != "win32":
        return None
    import ctypes

    status = (ctypes.c_ulonglong * 8)()  # MEMORYSTATUSEX: two 32-bit fields, then sizes; [1] is all main memory
    ctypes.cast(status, ctypes.POINTER(ctypes.c_ulong))[0] = ctypes.sizeof(status)
    return float(status[1]) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
