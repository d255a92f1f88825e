"""Processes that train one head together, started by `torchrun`; a process alone is a team of one.

Each process reads its share of every batch and computes its logits; the logits of all come together, so that the loss
is that of the whole batch, as it would be in one process. (A mean of the processes' losses would be another loss: Dice
is no mean over images.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from autosam_net.errors import UsageError
from autosam_net.parallel import WHOLE, Part

PATIENCE = timedelta(hours=24)  # while the first process encodes or validates, the others wait


@dataclass(frozen=True)
class Team:
    """The processes, seen from one of them.

    Attributes:
        share: this process's, of a batch and of the cases to be encoded.
    """

    share: Part = WHOLE

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that writes files."""
        return self.share.index == 0

    def check_batch(self, size: int) -> None:
        """Refuse a batch that cannot be shared equally.

        Raises:
            UsageError: names the batch and the processes.
        """
        if size % self.share.count:
            raise UsageError(
                f"{self.share.count} processes cannot share a batch of {size} equally. Start another number of "
                "processes, or change batch_size of the configuration in plan.json."
            )

    def wrapped(self, head: nn.Module) -> nn.Module:
        """Return the head such that `backward` leaves the same gradients, of the whole batch, in every process."""
        return head if self.share == WHOLE else nn.parallel.DistributedDataParallel(head)

    def gathered(self, mine: torch.Tensor) -> torch.Tensor:
        """Return the parts `(B / processes, ...)` of all processes as one batch; gradients flow into one's own only."""
        if self.share == WHOLE:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.share.count)]
        distributed.all_gather(parts, mine.detach().contiguous())
        parts[self.share.index] = mine
        return torch.cat(parts)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return what `backward` is called on: the wrapped head averages gradients that are to be added up."""
        return loss * self.share.count

    def agreed(self, value: int, choose: Callable[[Sequence[int]], int]) -> int:
        """Return in every process the same of the processes' values."""
        if self.share == WHOLE:
            return value
        values: list[int] = [0] * self.share.count
        distributed.all_gather_object(values, value)
        return choose(values)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process do what is entered before all others, who then find it done."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes have come so far."""
        if self.share != WHOLE:
            distributed.barrier()


def this_team() -> Team:
    """Return the processes of torch's process group, or this process alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Team()
    return Team(Part(distributed.get_rank(), distributed.get_world_size()))


@contextmanager
def join_team(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started, if it did; yield the device of this one.

    Args:
        device: "cuda" is split up, one GPU a process, and they talk through NCCL; others talk through Gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
