"""What a run.json says of any run: the command, the machine, its memory and the versions of what computed."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autosam_net.memory import MIB, resident_mib
from autosam_net.parallel import available_cores

PACKAGES = ("autosam_net", "numpy", "SimpleITK", "monai", "batchgenerators")


def run_facts(device: str) -> dict[str, Any]:
    """Return command line, time of the end, machine, peak memory (MiB) and versions, as they are at this moment.

    Args:
        device: as torch names it.
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "device": device,
            "name": device_name(device),
            "cores": available_cores(),
            "system": platform.platform(),
        },
        "peak_memory_mib": {kind: round(peak_memory_mib(kind)) for kind in dict.fromkeys(("cpu", device))},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # names the build, too
            **{name: version(name) for name in PACKAGES},
        },
    }


def peak_memory_mib(device: str) -> float:
    """Return the highest memory so far, of the GPU or else of this process; 0 where the system does not say."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(torch.device(device)) / MIB
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resident_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def device_name(device: str) -> str:
    """Return the name of the GPU or the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
