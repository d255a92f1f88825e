"""What planning knows of the machine: facts and measured speed, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autosam_net.data.prompts import PromptOptions

MIB = 2**20
SLOW_PASS = 2.0  # seconds of the frozen encoder for one input, beyond which nobody tunes it


@dataclass(frozen=True)
class Machine:
    """What the work will run on.

    Attributes:
        device: as torch names it: cpu, cuda, cuda:1, mps.
        memory_mib: of main memory that may be used: what the user allows, else what is free; 0 where nobody says.
        gpu_memory_mib: of the whole GPU; 0 on a CPU, and where a GPU shares main memory.
        disk_mib: free where preprocessed data go.
        bfloat16: whether the device computes in it.
        local_weights: encoders whose weights lie on this machine.
    """

    device: str
    cores: int
    memory_mib: float
    gpu_memory_mib: float
    disk_mib: float
    bfloat16: bool
    local_weights: tuple[str, ...]

    @property
    def has_gpu(self) -> bool:
        """Return whether the device is faster than a CPU by an order of magnitude."""
        return self.device != "cpu"


@dataclass(frozen=True)
class HeadRecipe:
    """What a head says of itself, copied from its class so that no rule needs torch."""

    settings: Mapping[str, float]
    batch_size: int
    epochs: int
    iterations: int
    learning_rate: float
    weight_decay: float
    encoder: str | None = None
    crop: float = 1.0
    prompts: PromptOptions | None = None


@dataclass(frozen=True)
class TunedProbe:
    """What it costs to let the encoder learn.

    Attributes:
        seconds_per_input: of one training step by LoRA in all blocks.
        memory_mib: strategy, such as "encoder+head:lora" -> expected peak with batches of `TUNED_BATCH`, of the GPU
            where it has memory of its own, else of main memory.
    """

    seconds_per_input: float
    memory_mib: Mapping[str, float]


@dataclass(frozen=True)
class Probe:
    """The machine, and how fast it was at the planned input size.

    Attributes:
        seconds_per_input: of the encoder.
        seconds_per_iteration: head -> one training step at the recipe's batch size.
        memory_mib: head -> peak of main memory while it trained, and "encode" -> that of the encoder; 0 where the
            system does not say.
        gpu_memory_mib: the same of the GPU, empty where there is none with memory of its own.
        recipes: head -> what it starts planning from; heads that do not fit the encoder are left out.
        tuned: None where it was not measured: such an encoder is too slow, too large, or has no attention blocks.
    """

    machine: Machine
    seconds_per_input: float
    seconds_per_iteration: Mapping[str, float]
    memory_mib: Mapping[str, float]
    recipes: Mapping[str, HeadRecipe]
    tuned: TunedProbe | None = None
    gpu_memory_mib: Mapping[str, float] = field(default_factory=dict)
