"""The device that torch computes on."""

from __future__ import annotations

from autosam_net.errors import UsageError


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
