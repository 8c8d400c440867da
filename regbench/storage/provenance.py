"""Where a number comes from: machine, versions, commit, as far as they can be known here."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from regbench.core.kernels import native

PACKAGES = ("torch", "torchvision", "robustbench", "pyautoattack", "numpy")


def provenance(device: torch.device) -> dict[str, str | int | bool]:
    """Return day (UTC), machine, device, package versions and commit, as flat text."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "compiler": native.version(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
        **_cuda(device),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": _dirty(),
    }


def _dirty() -> bool:
    """Tell whether the code is not that of the commit: changed, or a file more."""
    # tables that a run rewrites are no change of what it ran
    changed = _git("diff", "HEAD", "--name-only", "--", ":/", ":(top,exclude)reports")
    untracked = ("ls-files", "--others", "--exclude-standard", "--full-name", "--")
    return bool(changed or _git(*untracked, ":/regbench", ":/rules"))


def _cuda(device: torch.device) -> dict[str, str]:
    if device.type != "cuda":
        return {"cuda": "", "cudnn": "", "driver": ""}
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "driver": (_told(command).splitlines() or ["unknown"])[0],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the processor's name as the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _git(*arguments: str) -> str:
    return _told(["git", "-C", str(Path(__file__).parent), *arguments])


def _told(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
