"""What the steps of a plan are expected to cost on the machine that was probed."""

from __future__ import annotations

import math

import numpy as np

from autosam_net.data.configuration import TUNED_BATCH, parse_tuning
from autosam_net.data.fingerprint import CaseFingerprint, Fingerprint
from autosam_net.data.plan import Plan, StepEstimate
from autosam_net.memory import ENCODING_MIB, case_mib, prediction_mib
from planning.machine import MIB, Machine, Probe
from planning.rules.counts import training_share
from planning.rules.grid import count_case_inputs, planned_shape
from planning.rules.views import embedding_bytes

PREPROCESSING_RATE = 4e6  # voxels of raw and resampled images together, a second and core (measured on cardiac MR)
RESTORING_RATE = 5e7  # voxels times outputs a second, back to the raw grid (88e6 measured on a CT of 21 outputs)


def estimate_costs(plan: Plan, fingerprint: Fingerprint, probe: Probe) -> dict[str, StepEstimate]:
    """Return step -> expected time, disk, and memory at the peak: main memory, and the GPU's where it has its own.

    "encode" is one fold: its training cases with all views and its validation cases; "train:NAME" one fold of a head,
    with the disk that an encoder of its own takes; "tune:STRATEGY" one fold of the first configuration by a strategy
    that tunes the encoder; "predict" the median case by one head, in memory the largest one.
    """
    tuned = {} if probe.tuned is None else probe.tuned.memory_mib
    return {
        "preprocess": _preprocess(plan, fingerprint, probe.machine),
        "encode": _encode(plan, fingerprint, probe),
        **{f"train:{name}": _train(plan, name, fingerprint, probe) for name in plan.configurations},
        **{f"tune:{strategy}": _tune(plan, strategy, fingerprint, probe) for strategy in tuned},
        "predict": _predict(plan, fingerprint, probe),
    }


def rounded(value: float) -> float:
    """Return `value` with two digits: more would be noise of the measurement."""
    return float(f"{value:.2g}")


def _preprocess(plan: Plan, fingerprint: Fingerprint, machine: Machine) -> StepEstimate:
    channels = len(plan.channel_names)
    raw = [math.prod(case.shape) for case in fingerprint.cases]
    resampled = [math.prod(planned_shape(case, plan.preprocessing)) for case in fingerprint.cases]
    one = _largest_case_mib(fingerprint, channels)
    workers = int(max(1, min(machine.cores, len(raw), (machine.memory_mib or math.inf) / one)))
    return StepEstimate(
        seconds=rounded(channels * (sum(raw) + sum(resampled)) / PREPROCESSING_RATE / workers),
        disk_mib=rounded(sum(resampled) * (4 * channels + 1) / MIB),
        memory_mib=rounded(workers * one),
    )


def _largest_case_mib(fingerprint: Fingerprint, channels: int) -> float:
    """Return what one process holds at its peak while it preprocesses the largest case."""
    return case_mib(max(math.prod(case.shape) for case in fingerprint.cases), channels)


def _encode(plan: Plan, fingerprint: Fingerprint, probe: Probe) -> StepEstimate:
    passes, disk = _passes(plan, fingerprint)
    seconds = passes * rounded(probe.seconds_per_input)
    return StepEstimate(rounded(seconds), rounded(disk), *_memory("encode", probe))


def _memory(measured: str, probe: Probe) -> tuple[float, float]:
    """Return what was measured at a step: main memory and the GPU's (MiB), 0 where nothing was."""
    return rounded(probe.memory_mib.get(measured, 0.0)), rounded(probe.gpu_memory_mib.get(measured, 0.0))


def _passes(plan: Plan, fingerprint: Fingerprint) -> tuple[int, float]:
    """Return how many embeddings one fold needs, and their size in MiB."""
    encoding = plan.encoding
    inputs = sum(count_case_inputs(fingerprint, plan.preprocessing, encoding).values())
    trained = training_share(inputs, plan.folds)
    passes = trained * encoding.views_for(trained) + (inputs - trained) * len(encoding.all_poses)
    return passes, passes * embedding_bytes(encoding) / MIB


def _train(plan: Plan, name: str, fingerprint: Fingerprint, probe: Probe) -> StepEstimate:
    configuration = plan.configurations[name]
    inputs, patients = _training_set(plan, fingerprint)
    recipe, step = probe.recipes[configuration.head], probe.seconds_per_iteration[configuration.head]
    seconds = configuration.epochs_for(inputs, patients) * configuration.iterations * rounded(step)
    share = configuration.batch_size / recipe.batch_size * (configuration.crop / recipe.crop) ** 2
    own = 0.0 if configuration.encoder is None else _passes(plan.for_configuration(name), fingerprint)[1]
    return StepEstimate(rounded(seconds * share), rounded(10.0 + own), *_memory(configuration.head, probe))


def _tune(plan: Plan, strategy: str, fingerprint: Fingerprint, probe: Probe) -> StepEstimate:
    tuning = parse_tuning(strategy)
    assert tuning is not None and probe.tuned is not None, "the probe measured strategies that tune the encoder"
    configuration = next(iter(plan.configurations.values())).with_tuning(tuning)
    inputs, patients = _training_set(plan, fingerprint)
    steps = configuration.epochs_for(inputs, patients) * configuration.iterations
    seconds = steps * configuration.batch_size * rounded(probe.tuned.seconds_per_input)
    need = rounded(probe.tuned.memory_mib[strategy] * configuration.batch_size / TUNED_BATCH)
    memory = (_memory("encode", probe)[0], need) if probe.gpu_memory_mib else (need, 0.0)
    return StepEstimate(rounded(seconds), rounded(10.0), *memory)


def _training_set(plan: Plan, fingerprint: Fingerprint) -> tuple[int, int]:
    """Return the encoder inputs and the patients that one fold trains on."""
    inputs = sum(count_case_inputs(fingerprint, plan.preprocessing, plan.encoding).values())
    patients = len(set(fingerprint.groups.values()))
    return training_share(inputs, plan.folds), training_share(patients, plan.folds)


def _predict(plan: Plan, fingerprint: Fingerprint, probe: Probe) -> StepEstimate:
    inputs = float(np.median(sorted(count_case_inputs(fingerprint, plan.preprocessing, plan.encoding).values())))
    raw = float(np.median(sorted(math.prod(case.shape) for case in fingerprint.cases)))
    outputs = plan.label_set.outputs
    encoding = inputs * rounded(probe.seconds_per_input) * len(plan.encoding.all_poses)
    memory = max(_prediction_mib(plan, case, probe) for case in fingerprint.cases)
    seconds = encoding + raw * outputs / RESTORING_RATE
    return StepEstimate(rounded(seconds), rounded(raw / MIB), rounded(memory), _memory("encode", probe)[1])


def _prediction_mib(plan: Plan, case: CaseFingerprint, probe: Probe) -> float:
    channels, planned = len(plan.channel_names), planned_shape(case, plan.preprocessing)
    raw = np.delete(case.cropped_shape, plan.preprocessing.slice_axis)
    probabilities = max(math.prod(raw), math.prod(planned[1:])) * plan.label_set.outputs
    encoding = probe.memory_mib.get("encode") or ENCODING_MIB
    return prediction_mib(math.prod(case.shape), channels, channels * math.prod(planned), probabilities, encoding)
