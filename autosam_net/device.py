"""The device that torch computes on, and who works beside it."""

from __future__ import annotations

from autosam_net.errors import UsageError
from autosam_net.parallel import available_cores


def choose_device(name: str = "auto") -> str:
    """Return the device called `name`, as torch writes it; "auto" is a GPU of CUDA where there is one, else the CPU.

    Raises:
        UsageError: torch does not know the device, or cannot reach it.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name}: cannot be used ({reason}). Use cpu, or mend the driver.") from error
    return name


def drawing_processes(device: str, sharing: int = 1) -> int:
    """Return how many processes draw inputs for a network on this device: none beside a CPU, which it takes whole.

    A GPU would wait for a single one: a view of 256 px takes 20 ms.

    Args:
        sharing: processes of one training on this machine, each with its part of the cores.
    """
    return 0 if device.split(":")[0] == "cpu" else max(1, available_cores() // sharing)
