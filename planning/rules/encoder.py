"""Which encoder sees the slices, and what it computes in."""

from __future__ import annotations

from autosam_net.encoders.catalog import ENCODERS, EncoderEntry
from autosam_net.errors import UsageError
from planning.machine import Machine

CPU_ENCODER, GPU_ENCODER = "lite_medsam", "vit_b"
GPU_ENCODER_MIB = 6 * 1024


def choose_encoder(machine: Machine, wanted: str | None) -> tuple[str, str]:
    """Return the encoder's name.

    Raises:
        UsageError: no encoder is called `wanted`, or it is none that a plan can be made for.
    """
    if wanted is not None:
        entry = find_encoder(wanted)
        return wanted, f"asked for by --encoder ({entry.parameters:g} million parameters)"
    light, strong = ENCODERS.get(CPU_ENCODER), ENCODERS.get(GPU_ENCODER)
    assert strong.weights is not None
    cost = f"{light.parameters:g} million parameters, {light.gflop:g} GFLOP a slice"
    if not machine.has_gpu:
        return (
            CPU_ENCODER,
            f"no GPU ({machine.cores} cores): the lightest, {cost} against {strong.gflop:g} of {GPU_ENCODER}",
        )
    if GPU_ENCODER not in machine.local_weights:
        return CPU_ENCODER, (
            f"{cost}; the weights of {GPU_ENCODER} ({strong.weights.size / 1e6:.0f} MB) are not on this machine, "
            f"--encoder {GPU_ENCODER} would download them"
        )
    if machine.gpu_memory_mib < GPU_ENCODER_MIB:
        return (
            CPU_ENCODER,
            f"the GPU's {machine.gpu_memory_mib:.0f} MiB are under the {GPU_ENCODER_MIB} that {GPU_ENCODER} needs",
        )
    return GPU_ENCODER, (
        f"a GPU of {machine.gpu_memory_mib:.0f} MiB and its weights are here: {strong.parameters:g} million parameters"
    )


def find_encoder(name: str) -> EncoderEntry:
    """Return the entry of an encoder that a plan can be made for.

    Raises:
        UsageError: no encoder is called so, or it has no weights and belongs to single configurations.
    """
    entry = ENCODERS.get(name)
    if entry.weights is None:
        raise UsageError(f"--encoder {name}: {entry.description}; configurations such as unet take it by themselves.")
    return entry


def explain_precision(machine: Machine) -> str:
    """Return what the encoder will compute in; each machine decides it for itself."""
    if machine.bfloat16:
        return (
            f"bfloat16: {machine.device} has instructions for it, twice as fast as float32; 16 bits are stored anyway"
        )
    return f"float32 (32 bits): {machine.device} has no instructions for bfloat16"
