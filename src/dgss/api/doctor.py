"""What this machine offers, and what stands in the way of a training on it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from textwrap import shorten

from dgss.errors import DgssError
from dgss.files import cache_folder, usable_cores, write_text

# a line of the package's metadata: name, least version, extra
_REQUIREMENT = re.compile(r"""([\w.-]+)(?:\[.*?\])?(?:\s*>=\s*([\d.]+))?(?:.*extra == ['"]([\w-]+)['"])?""")
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
    checks: tuple[Callable[[], list[Finding]], ...] = (_packages, _device, _machine, _folders)
    return Diagnosis(tuple(finding for check in checks for finding in check()))


@dataclass(frozen=True)
class _Need:
    """A package that this one needs. least: the version it was tried with first. found: the one there is, if any."""

    name: str
    least: str
    found: str | None

    @property
    def met(self) -> bool:
        return self.found is not None and _numbers(self.found) >= _numbers(self.least)

    @property
    def finding(self) -> Finding:
        wanted = f'"{self.name}>={self.least}"' if self.least else self.name
        why = f"{self.least} or newer is needed: " if self.least and self.found else ""
        advice = "" if self.met else f"{why}run `pip install --upgrade {wanted}`"
        return Finding(self.name, self.found or "missing", advice, serious=not self.met)


def _needs() -> dict[str, list[_Need]]:
    """What the installed package says that it needs, by extra; `""` is the core."""
    needs: dict[str, list[_Need]] = {"": []}
    for line in metadata.requires("dgss") or ():
        if match := _REQUIREMENT.match(line):
            name, least, extra = match.groups(default="")
            needs.setdefault(extra, []).append(_Need(name, least, _version(name)))
    return needs


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", re.sub(r"(\.0)+$", "", version.partition("+")[0]))]


def _packages() -> list[Finding]:
    """Python, this package, its core dependencies, its extras."""
    old = sys.version_info < (3, 11)
    findings = [Finding("Python", platform.python_version(), "Python 3.11 or newer is needed" if old else "", old)]
    own = _version("dgss")
    if own is None:
        advice = "it runs from a folder of sources, so what it needs is not known: run `pip install -e .` there"
        return [*findings, Finding("dgss", "not installed", advice)]
    needs = _needs()
    findings += [Finding("dgss", own), *(need.finding for need in needs.pop(""))]
    there = [extra for extra, packages in needs.items() if all(need.met for need in packages)]
    findings.append(Finding("extras", ", ".join(there) or "none"))
    if absent := [extra for extra in needs if extra not in there]:
        advice = f'where one is needed: `pip install "dgss[{absent[0]}]"`, and so on'
        findings.append(Finding("other extras", ", ".join(absent), advice))
    return findings


def _device() -> list[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is told below, in one line
            import torch
            import torchvision  # noqa: F401 - a torchvision that was built for another torch fails here

            if torch.cuda.is_available():
                memory = torch.cuda.get_device_properties(0).total_memory / 1e9
                return [Finding("device", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GB")]
    except Exception as error:  # a broken installation fails in any way
        advice = "install both again, from one place: `pip install --force-reinstall torch torchvision`"
        reason = shorten(str(error), 100, placeholder=" ...") or type(error).__name__
        return [Finding("device", f"torch or torchvision cannot be loaded ({reason})", advice, serious=True)]
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
        reason = getattr(error.__cause__, "strerror", None) or error
        return Finding(topic, f"{folder} cannot be written: {reason}", advice, serious=True)
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
