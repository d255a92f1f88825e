"""Pretrain without labels: the plan's encoder by masked image modelling, or a U-Net's first half by contrast.

It sees the images of a fold's training cases, of the scans in imagesUn, and of a folder that is named; what the fold
holds out, and what is in imagesTs, it never sees. The weights and a record of them go into the user's folder
(`encoders.pretrained`), the rest into results:

results/Dataset027_ACDC/pretraining/NAME/   checkpoint.safetensors  run.json  training_log.csv  progress.png
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.encoding import NO_ENCODER
from autosam_net.data.plan import Plan, settings_digest
from autosam_net.device import drawing_processes
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import changed_checkpoint, load_encoder, read_checkpoint, supports_bfloat16
from autosam_net.encoders.pretrained import NAME, PretrainedRecord, case_digest, find_record, record_file, weights_file
from autosam_net.encoders.tuning import ENCODER, count_parameters
from autosam_net.encoders.weights import file_sha256, find_weights, weights_sha256
from autosam_net.errors import UsageError
from autosam_net.files import alone, remove_folder, remove_leftovers
from autosam_net.heads.head import build_head
from autosam_net.jsonio import sealed, to_json, write_json
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import load_record
from autosam_net.training.build import head_shape
from autosam_net.training.cases import training_split
from autosam_net.training.checkpoint import TrainingState, save_tensors
from autosam_net.training.contrastive import ContrastiveModel, draw_pairs, pair_loss
from autosam_net.training.loop import Course, learning_rate, optimize
from autosam_net.training.manifest import run_facts
from autosam_net.training.masked import MaskedModel, draw_masked, hidden_error, let_all_learn
from autosam_net.training.material import Material, find_material
from autosam_net.training.run import TrainingOptions
from autosam_net.training.slices import UnlabelledSlices

log = logging.getLogger(__name__)
VERSION = 1  # to be raised when the same settings give other weights
ITERATIONS = 10  # of an epoch: they take seconds on a CPU, and time limits are looked at between epochs
PASSES = 10  # over all inputs, where the user does not say how long
MASKED_BATCH, CONTRASTIVE_BATCH = 4, 32  # inputs, as for tuning; and pairs: the more, the more there is to tell apart
ENCODER_RATE, ENCODER_DECAY = 1e-4, 0.05  # as for tuning all of its weights; SimMIM's
NEW_RATE, NEW_DECAY = 1e-3, 1e-4  # of what begins at random


@dataclass(frozen=True)
class PretrainingOptions:
    """What the user may decide for one pretraining.

    Attributes:
        fold: whose training cases are seen; "all" for every case.
        unlabelled: a folder of more scans, named as in imagesTr.
        configuration: that trains a head from scratch, such as "unet", to pretrain that; None for the plan's encoder.
        name: of the result; None for one made of all this.
        batch_size: inputs; None for 4 of an encoder, and 32 pairs of a head.
        epochs: of 10 iterations; None for ten passes over all inputs.
        max_minutes: of everything together; it is shortened to fit.
        overwrite: begin anew, and replace a network of that name.
    """

    fold: str = "0"
    unlabelled: Path | None = None
    configuration: str | None = None
    name: str | None = None
    seed: int = 0
    batch_size: int | None = None
    epochs: int | None = None
    max_minutes: float | None = None
    device: str = "cpu"
    overwrite: bool = False

    def network_name(self, dataset: DatasetSpec, base: str) -> str:
        """Return the name that was given, or `lite_medsam_027_fold0`, perhaps with `_seed1`."""
        seed = f"_seed{self.seed}" if self.seed else ""
        return self.name or f"{base}_{dataset.identifier:03d}_fold{self.fold}{seed}"


@dataclass(frozen=True)
class _Origin:
    """What a pretraining begins with.

    Attributes:
        plan: as the configuration follows it, if there is one.
        base: registered encoder, or head.
        file: of the weights; None for a head, which begins at random.
        sha256: of the weights, "none" for a head.
    """

    plan: Plan
    base: str
    file: Path | None = None
    sha256: str = "none"
    licence: str | None = None


@dataclass(frozen=True)
class _Task:
    """What is learnt, in one of the two ways.

    Attributes:
        inputs: that batches are drawn from.
        draw: iteration -> batch.
        learn: see `loop.Learn`.
        weights: returns what is kept.
    """

    model: nn.Module
    inputs: int
    batch_size: int
    draw: Callable[[int], Any]
    learn: Callable[[nn.Module, Any], tuple[torch.Tensor, dict[str, float]]]
    weights: Callable[[], dict[str, torch.Tensor]]


def pretrain(
    dataset: DatasetSpec, plan: Plan, options: PretrainingOptions | None = None, folders: Folders | None = None
) -> PretrainedRecord:
    """Pretrain a network without labels, and return the record of what then lies in the user's folder.

    The same command goes on after an interruption, and returns what is there when it has finished before.

    Raises:
        BusyError: another process is making a network of that name.
        ModelError: the loss is no number, or an earlier attempt began with other data or settings.
        PlanError: a case is not preprocessed, or there is no such configuration.
        UsageError: there is no such fold, a name is taken or impossible, or nothing can be pretrained.
        WeightsError: the encoder's weights are missing, or another checkpoint cannot be made of them.
    """
    begin = time.monotonic()
    options, folders = options or PretrainingOptions(), folders or find_folders()
    origin = _origin(plan, options.configuration)
    name = options.network_name(dataset, origin.base)
    _check_name(name, origin.plan)
    split = training_split(dataset, options.fold, TrainingOptions(), folders)
    material = find_material(dataset, origin.plan, split, options.unlabelled, folders)
    digest = _digest(origin, material, options)
    folder = folders.results / dataset.name / "pretraining" / name
    with alone(folder, "another process is making it. Wait until it has finished."):
        if options.overwrite:
            _forget(folder, name)
        elif (record := find_record(name)) is not None:
            return _same(record, _asked(digest, options))
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        task = _task(origin, material, options)
        deadline = math.inf if options.max_minutes is None else begin + 60 * options.max_minutes
        state = _run(task, options, folder, digest, deadline)
        manifest = _manifest(origin, material, options, task, state)
        write_json(folder / "run.json", sealed({**manifest, "held_out": split.val}))
        record = _record(dataset, origin, material, options, task, state, name, _asked(digest, options))
        return _keep(record, task.weights())


def _origin(plan: Plan, configuration: str | None) -> _Origin:
    encoding = plan.encoding
    if configuration is None:
        source, record = ENCODERS.get(encoding.encoder).weights, find_record(encoding.encoder)
        licence = source.licence if source is not None and encoding.weights is None else None
        file = find_weights(encoding.encoder, encoding.weights_file)
        sha256 = weights_sha256(encoding.encoder, encoding.weights_file)
        return _Origin(plan, encoding.encoder if record is None else record.base, file, sha256, licence)
    plan = plan.for_configuration(configuration)
    if plan.encoding.encoder != NO_ENCODER:
        raise UsageError(
            f"-c {configuration}: works on the encoder {plan.encoding.encoder}; -c is for what trains from scratch, "
            "such as unet. Leave it out to pretrain the encoder."
        )
    return _Origin(plan, plan.configuration(configuration).head)


def _check_name(name: str, plan: Plan) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name}: give letters, digits, _ + - and dots, no dot first.")
    if ENCODERS.is_registered(name):
        raise UsageError(f"--name {name}: an encoder is called so. Give another name.")
    if name == plan.encoding.encoder:
        raise UsageError(f"--name {name}: the encoder to begin with is called so. Give another name.")


def _digest(origin: _Origin, material: Material, options: PretrainingOptions) -> str:
    """Return the digest of all that the result depends on, the length left out."""
    encoding, name = origin.plan.encoding, options.configuration
    inputs = encoding.input_size, encoding.overlap, encoding.rgb, encoding.rotation
    head = None if name is None else origin.plan.configuration(name).settings
    contents = [(load_record(case).key, patient) for case, patient in material.patients.items()]
    chosen = options.seed, options.batch_size
    return settings_digest(VERSION, origin.base, head, origin.sha256, inputs, chosen, contents)


def _asked(digest: str, options: PretrainingOptions) -> str:
    """Return the digest of all that the result depends on."""
    return settings_digest(digest, options.epochs, options.max_minutes)


def _forget(folder: Path, name: str) -> None:
    record_file(name).unlink(missing_ok=True)  # first: weights without a record are not there
    weights_file(name).unlink(missing_ok=True)
    if folder.exists():
        remove_folder(folder)


def _same(record: PretrainedRecord, settings: str) -> PretrainedRecord:
    if record.settings != settings:
        raise UsageError(
            f"{record.name}: made before, of other data or settings. Give another --name, or --overwrite to replace it."
        )
    log.info("%s: made before (--overwrite makes it anew)", record.file)
    return record


def _task(origin: _Origin, material: Material, options: PretrainingOptions) -> _Task:
    slices = UnlabelledSlices(material.patients, origin.plan.encoding)
    log.info("%d cases of %d patients, %d inputs", len(material.patients), len(slices.of_patient), len(slices.inputs))
    torch.manual_seed(options.seed)
    return (_masked if options.configuration is None else _contrastive)(origin, slices, options)


def _masked(origin: _Origin, slices: UnlabelledSlices, options: PretrainingOptions) -> _Task:
    encoding, file, device = origin.plan.encoding, origin.file, torch.device(options.device)
    assert file is not None, "encoders begin with weights"
    encoder = load_encoder(encoding.encoder, encoding.input_size, file, "cpu", "float32")
    let_all_learn(encoder, read_checkpoint(file), ENCODERS.get(encoding.encoder).parameters)
    size, mixed, channels = options.batch_size or MASKED_BATCH, supports_bfloat16(device), encoding.distinct_channels

    def learn(model: nn.Module, drawn: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        images, hidden = (part.to(device) for part in drawn)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            pixels = model(images, hidden)
        return hidden_error(pixels, images[:, channels], hidden), {}

    return _Task(
        model=MaskedModel(encoder, len(channels)).to(device),
        inputs=len(slices.inputs),
        batch_size=size,
        draw=functools.partial(draw_masked, slices, encoder.stride, options.seed, size),
        learn=learn,
        weights=lambda: changed_checkpoint(encoder, read_checkpoint(file)),
    )


def _contrastive(origin: _Origin, slices: UnlabelledSlices, options: PretrainingOptions) -> _Task:
    assert options.configuration is not None, "encoders are not pretrained in this way"
    settings, device = origin.plan.configuration(options.configuration), torch.device(options.device)
    inputs, mixed = len(slices.inputs), supports_bfloat16(device)
    size = min(options.batch_size or CONTRASTIVE_BATCH, inputs)
    if size < 2:
        raise UsageError(f"-c {options.configuration}: a batch of {size} has nothing to tell apart. Give 2 or more.")
    head = build_head(settings.head, head_shape(origin.plan), settings.settings, {})
    network = ContrastiveModel(head, settings.head).to(device)

    def learn(model: nn.Module, drawn: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            features = model(drawn.to(device))
        loss, found = pair_loss(features)
        return loss, {"pairs_found": found}

    draw = functools.partial(draw_pairs, slices, options.seed, size)
    return _Task(network, inputs, size, draw, learn, network.path_weights)


def _run(task: _Task, options: PretrainingOptions, folder: Path, digest: str, deadline: float) -> TrainingState:
    epochs = options.epochs or max(1, math.ceil(PASSES * task.inputs / task.batch_size / ITERATIONS))
    optimizer = torch.optim.AdamW(_parameter_groups(task.model))
    state = TrainingState(task.model, optimizer, iteration=0, epochs=epochs, log=[], seconds=0.0, sums={})
    course = Course(
        folder=folder,
        digest=digest,
        iterations=ITERATIONS,
        rate=lambda iteration, epochs: learning_rate(iteration, epochs * ITERATIONS, NEW_RATE),
        deadline=deadline,
        cure="Give a larger --batch-size, and begin anew with --overwrite.",
        drawing_processes=drawing_processes(options.device),
    )
    course.resume(state, options.epochs)
    optimize(course, state, task.draw, task.learn)
    return state


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return what learns: what begins at random, and an encoder, which knows much already."""
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_encoder, new = (
        [parameter for name, parameter in learning if name.startswith(ENCODER) == wanted] for wanted in (True, False)
    )
    groups = [{"params": new, "weight_decay": NEW_DECAY, "factor": 1.0}]
    if of_encoder:
        groups.append({"params": of_encoder, "weight_decay": ENCODER_DECAY, "factor": ENCODER_RATE / NEW_RATE})
    return groups


def _manifest(
    origin: _Origin, material: Material, options: PretrainingOptions, task: _Task, state: TrainingState
) -> dict[str, Any]:
    return {
        "began_with": {"name": origin.plan.encoding.encoder, "sha256": origin.sha256},
        "learnt_from": [case.name for case in material.patients],
        "options": to_json(options),
        "batch_size": task.batch_size,
        "parameters": count_parameters(state.model),
        "epochs": state.epochs,
        "iterations": state.iteration,
        "seconds": round(state.seconds, 1),
        **run_facts(options.device),
    }


def _record(
    dataset: DatasetSpec,
    origin: _Origin,
    material: Material,
    options: PretrainingOptions,
    task: _Task,
    state: TrainingState,
    name: str,
    settings: str,
) -> PretrainedRecord:
    """Return the record but for checksum and size of the weights, which are not written yet."""
    return PretrainedRecord(
        name=name,
        method="masked" if options.configuration is None else "contrastive",
        base=origin.base,
        sha256="",
        size=0,
        licence=origin.licence,
        began_with=origin.sha256,
        dataset=dataset.name,
        fold=options.fold,
        cases=len(material.patients),
        inputs=task.inputs,
        iterations=state.iteration,
        batch_size=task.batch_size,
        minutes=round(state.seconds / 60, 1),
        seed=options.seed,
        settings=settings,
        seen=tuple(case_digest(dataset.name, case) for case in material.of_dataset),
    )


def _keep(record: PretrainedRecord, weights: dict[str, torch.Tensor]) -> PretrainedRecord:
    """Write weights and record into the user's folder, the record last; equal weights make an equal file."""
    changing = ("name", "sha256", "size", "minutes", "settings", "seen")
    facts = {key: value for key, value in to_json(record).items() if key not in changing}
    save_tensors(record.file, weights, {"pretrained": facts})
    record = replace(record, sha256=file_sha256(record.file), size=record.file.stat().st_size)
    write_json(record_file(record.name), sealed(record))
    return record
