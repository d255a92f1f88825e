"""Measure for a few seconds how fast this machine encodes and trains at the planned input size."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.data.configuration import STRATEGIES, TUNED_BATCH, Tuning, parse_tuning
from autosam_net.data.encoding import CELL, Encoding
from autosam_net.data.labels import LabelSet
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.weights import has_weights
from autosam_net.errors import PlanError, WeightsError
from autosam_net.memory import allowed_memory_mib
from autosam_net.parallel import available_cores, progress, working
from planning.machine import MIB, SLOW_PASS, HeadRecipe, Machine, Probe, TunedProbe

if TYPE_CHECKING:
    import torch

    from autosam_net.encoders.encoder import Encoder
    from autosam_net.heads.head import HeadShape, Recipe

log = logging.getLogger("autosam_net.planning")

TIMED_RUNS = 3
TIME_LIMIT = 2.0  # seconds, after which no run is added
SLOW_RUN = 8.0  # seconds
PREDICTING_MIB = 400.0  # of a process that predicts, beside the encoder: libraries, files of cases (185 measured)
TRAINING_MIB = 700.0  # of one that trains, beside encoder and head: also what validation leaves (300 to 630 measured)
WORKSPACE = 1.3  # peak of a step over what it keeps for the gradient (LoRA in LiteMedSAM, batches of 4, on a CPU)
TRAINED_BYTES = 12  # of a parameter that learns: its gradient and both moments of AdamW


def probe_machine(device: str, folder: Path) -> Machine:
    """Return the facts of this machine.

    Args:
        device: as torch names it.
        folder: below which preprocessed data will be written.
    """
    import torch

    from autosam_net.encoders.encoder import supports_bfloat16

    kind = torch.device(device).type
    gpu = torch.cuda.get_device_properties(torch.device(device)).total_memory / MIB if kind == "cuda" else 0.0
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return Machine(
        device=device,
        cores=available_cores(),
        memory_mib=0.0 if math.isinf(allowed := allowed_memory_mib()) else allowed,
        gpu_memory_mib=gpu,
        disk_mib=shutil.disk_usage(existing).free / MIB,
        bfloat16=supports_bfloat16(device),
        local_weights=tuple(name for name in ENCODERS if has_weights(name)),
    )


def probe_speed(machine: Machine, encoding: Encoding, labels: LabelSet) -> Probe:
    """Return how long an encoder pass and a training step of every head take, with the real encoder.

    Heads that need decoder weights which the encoder does not bring, or more memory than there is, are left out, with a
    message.

    Raises:
        WeightsError: the encoder's weights are missing.
    """
    import torch

    import autosam_net.heads  # noqa: F401  (registers the built-in heads)
    from autosam_net.encoders.encoder import load_encoder
    from autosam_net.heads.head import HEADS, HeadShape

    log.info("measuring the speed of %s at %d px on %s", encoding.encoder, encoding.input_size, machine.device)
    with torch.random.fork_rng(devices=[]):
        encoder = load_encoder(encoding.encoder, encoding.input_size, encoding.weights_file, machine.device)
        with working("measure the encoder"):
            seconds = _time_encoder(encoder, machine)
        memory, gpu_memory = {"encode": _peak_mib(PREDICTING_MIB)}, _gpu_peak("encode", machine)
        times, recipes = {}, {}
        # networks on an encoder of their own come last: they need most memory, and the peak is of all that ran so far
        names = sorted(HEADS, key=lambda name: HEADS.get(name).recipe.encoder is not None)
        for name in progress(names, "measure the heads", len(names), "head", str):
            recipe: Recipe = HEADS.get(name).recipe
            try:
                own, pixels = encoder, encoding.pixel_channels
                if recipe.encoder is not None:
                    own, pixels = load_encoder(recipe.encoder, encoding.input_size, device=machine.device), 0
                shape = HeadShape(labels.outputs, own.channels, own.stride, own.input_size, pixels)
                times[name] = _time_head(name, shape, own.mask_decoder_weights, labels, machine)
            except (PlanError, WeightsError, torch.cuda.OutOfMemoryError) as error:
                log.warning("no configuration for head %s: %s", name, error)
                continue
            memory[name] = _peak_mib(TRAINING_MIB)
            gpu_memory |= _gpu_peak(name, machine)
            recipes[name] = HeadRecipe(**{**vars(recipe), "settings": dict(recipe.settings)})
        base = (gpu_memory or memory)["encode"]
        tuned = None if seconds > SLOW_PASS else _probe_tuning(encoding, machine, base)
    return Probe(machine, seconds, times, memory, recipes, tuned, gpu_memory)


def _peak_mib(beside: float) -> float:
    """Return the peak of main memory so far, with what is beside it: the probe reads, writes and measures no case."""
    from autosam_net.training.manifest import peak_memory_mib

    peak = peak_memory_mib("cpu")
    return peak + beside if peak else 0.0


def _gpu_peak(step: str, machine: Machine) -> dict[str, float]:
    """Return `step` -> peak of the GPU so far, nothing where there is none with memory of its own."""
    from autosam_net.training.manifest import peak_memory_mib

    return {step: peak_memory_mib(machine.device)} if machine.gpu_memory_mib else {}


def _probe_tuning(encoding: Encoding, machine: Machine, base_mib: float) -> TunedProbe | None:
    """Return what it costs to let the encoder learn; None where it cannot, or where there is no memory for it.

    Args:
        base_mib: peak while the encoder was frozen, of the GPU or else of main memory.
    """
    import torch

    tunings = {text: tuning for text in STRATEGIES if (tuning := parse_tuning(text)) is not None and tuning.of_encoder}
    memory = {}
    try:
        with working("measure the encoder that learns"):
            for text, tuning in tunings.items():
                seconds, kept = _time_tuned(encoding, tuning, machine)
                memory[text] = base_mib + kept
                if tuning.method == "lora":
                    fastest = seconds
    except (PlanError, torch.cuda.OutOfMemoryError) as error:
        log.info("the encoder that learns was not measured: %s", error)
        return None
    return TunedProbe(fastest, memory)


def _time_tuned(encoding: Encoding, tuning: Tuning, machine: Machine) -> tuple[float, float]:
    """Return seconds of one input in a training step, and MiB that a step of `TUNED_BATCH` inputs takes."""
    import torch

    from autosam_net.encoders.encoder import load_encoder
    from autosam_net.encoders.tuning import tune_encoder

    encoder = load_encoder(
        encoding.encoder, encoding.input_size, encoding.weights_file, machine.device, precision="float32"
    )
    tune_encoder(encoder, tuning)
    count = 1 if machine.device == "cpu" else TUNED_BATCH  # a CPU takes them one after the other
    images = torch.full((count, 3, encoder.input_size, encoder.input_size), 0.5, device=machine.device)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        with torch.autocast(torch.device(machine.device).type, torch.bfloat16, enabled=machine.bfloat16):
            embedding = encoder(images)
        encoder.zero_grad(set_to_none=True)
        embedding.square().mean().backward()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        seconds = _time(step, machine)
    if tuning.method == "lora":
        seconds = _fastest(step, machine)
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    activations = WORKSPACE * sum(kept.values()) * TUNED_BATCH / count
    return seconds / count, (activations + TRAINED_BYTES * trained) / MIB


def _time_encoder(encoder: Encoder, machine: Machine) -> float:
    """Return seconds per input."""
    import torch

    from autosam_net.embedding.source import batch_size, run_in_memory

    count = batch_size(machine.device)
    images = torch.full((count, 3, encoder.input_size, encoder.input_size), 0.5, device=machine.device)
    return _fastest(lambda: run_in_memory(encoder, images), machine) / count


def _time_head(
    name: str, shape: HeadShape, decoder_weights: Mapping[str, torch.Tensor], labels: LabelSet, machine: Machine
) -> float:
    """Return seconds per training step by the head's recipe."""
    import torch

    from autosam_net.heads.head import HEADS, build_head
    from autosam_net.training.losses import SegmentationLoss

    recipe = HEADS.get(name).recipe
    head = build_head(name, shape, recipe.settings, decoder_weights).to(machine.device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate)
    loss_function = SegmentationLoss(labels).to(machine.device)
    channels, grid = shape.channels + shape.pixels * CELL**2, round(recipe.crop * shape.grid)
    embedding = torch.randn(recipe.batch_size, channels, grid, grid, device=machine.device)
    inputs = [embedding]
    if recipe.prompts is not None:
        inputs.append(_whole_boxes(recipe.batch_size, shape, labels).to(machine.device))
    target = torch.zeros((recipe.batch_size, grid * shape.stride, grid * shape.stride), dtype=torch.uint8)
    target = target.to(machine.device)

    def step() -> None:
        kind = torch.device(machine.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=machine.bfloat16):
            logits = head(*inputs)
        optimizer.zero_grad(set_to_none=True)
        loss: torch.Tensor = loss_function(logits, target)
        loss.backward()
        optimizer.step()

    return _fastest(step, machine)


def _whole_boxes(count: int, shape: HeadShape, labels: LabelSet) -> torch.Tensor:
    """Return prompts for every class in each of `count` inputs, boxes around all of it."""
    import torch

    from autosam_net.data.prompts import Outline
    from autosam_net.preprocessing.prompts import stack_tokens

    side = float(shape.input_size - 1)
    outlines = dict.fromkeys(labels.targets, (Outline(box=(0.0, 0.0, side, side)),))
    return torch.from_numpy(stack_tokens([outlines] * count, labels))


def _fastest(work: Callable[[], object], machine: Machine) -> float:
    """Return the least seconds of a few runs: what else the machine did meanwhile only ever made it slower."""
    warm_up = _time(work, machine)  # prepares kernels; counted only where it was so slow that once is enough
    if warm_up > SLOW_RUN:
        return warm_up
    times: list[float] = []
    while len(times) < TIMED_RUNS and sum(times) < TIME_LIMIT:
        times.append(_time(work, machine))
    return min(times)


def _time(work: Callable[[], object], machine: Machine) -> float:
    """Return seconds of the wall; on a CPU of this thread's own work, which has its part in all that torch computes.

    While it waits for a core that another program holds, its clock stands still. So the plan is that of the machine,
    not of the hour.
    """
    import torch

    clock = time.thread_time if machine.device == "cpu" else time.perf_counter
    start = clock()
    work()
    if machine.device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start
