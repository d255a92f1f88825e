"""Train a head on cached embeddings, or encoder and head on slices; `loop` has the loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Configuration, Plan, settings_digest
from autosam_net.data.splits import Split
from autosam_net.device import drawing_processes
from autosam_net.embedding.embed import EncoderSource, embed_dataset, embed_in_time, embed_poses
from autosam_net.encoders.pretrained import PretrainedRecord, find_head, seen_among
from autosam_net.encoders.tuning import ENCODER, count_parameters, learnt
from autosam_net.encoders.weights import find_weights, weights_sha256
from autosam_net.files import alone, sha256_of_files
from autosam_net.jsonio import canonical, sealed, to_json, write_json
from autosam_net.parallel import WHOLE, Part
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import StoredCase, cases_folder
from autosam_net.preprocessing.slices import count_inputs, tile_grid
from autosam_net.training.batches import Batch, BatchSource, CachedBatches, PromptedBatches
from autosam_net.training.build import base_encoder, begin_with, build_model, head_shape
from autosam_net.training.cases import count_patients, records_of, training_split
from autosam_net.training.check_plan import check_tuning
from autosam_net.training.checkpoint import (
    TrainingState,
    load_tensors,
    save_tensors,
    tensors_sha256,
)
from autosam_net.training.loop import Course, learning_rate, optimize
from autosam_net.training.losses import SegmentationLoss, foreground_dice
from autosam_net.training.manifest import run_facts
from autosam_net.training.run import ModelFolder, TrainingOptions, prepare_fold
from autosam_net.training.slices import FreshSlices, cut_batch
from autosam_net.training.team import Team, this_team
from autosam_net.training.unlabelled import (
    RATE,
    Lessons,
    PseudoLabelledBatches,
    PseudoLabelledCase,
    unknown_value,
    unlabelled_loss,
)

log = logging.getLogger(__name__)
TUNED_WARM_UP, TUNED_POWER = 200, 0.9  # of pretrained parts, as published (Gu et al., arXiv 2404.09957)
TRAINING_SHARE = 0.5  # of a time limit; what it leaves is for the views of the slices, of which one is made in any case
MODEL_VERSION = 2


@dataclass(frozen=True)
class _Run:
    """What stays the same while one head is trained.

    Attributes:
        digest: of all that the result depends on, the length of the training left out.
        deadline: of the monotonic clock, in seconds.
        lessons: what unlabelled cases teach, if any.
        start: model.safetensors of the trained head that training begins with, if any.
    """

    plan: Plan
    settings: Configuration
    options: TrainingOptions
    folder: Path
    source: EncoderSource
    digest: str
    deadline: float
    lessons: Lessons | None
    start: Path | None
    team: Team

    @property
    def pretrained(self) -> PretrainedRecord | None:
        """Return the part of a head that training begins with, if any; a head that was trained already has it."""
        return None if self.start is not None else _pretrained(self.settings, self.options)

    @property
    def mixed_precision(self) -> bool:
        return self.source.precision == "bfloat16"

    @property
    def fresh_views(self) -> bool:
        """Return whether batches are slices, augmented anew, instead of cached embeddings or features."""
        encoding = self.plan.encoding
        return self.options.fresh_views or (encoding.tuned and encoding.tuned_from is None)

    @property
    def drawing_processes(self) -> int:
        """Return how many processes draw batches; none where they are only read."""
        return drawing_processes(self.options.device, self.team.share.count) if self.fresh_views else 0

    @property
    def course(self) -> Course:
        return Course(
            folder=self.folder,
            digest=self.digest,
            iterations=self.settings.iterations,
            rate=self.rate,
            deadline=self.deadline,
            cure="Lower learning_rate of this configuration in plan.json, and begin anew with --overwrite.",
            drawing_processes=self.drawing_processes,
            team=self.team,
        )

    @property
    def learning_rate(self) -> float:
        """Return the highest rate, of the head."""
        return self.settings.learning_rate * (1.0 if self.start is None else RATE)

    def rate(self, iteration: int, epochs: int) -> float:
        """Return the head's rate in an iteration."""
        schedule = learning_rate if self.settings.tuning is None else poly_rate
        return schedule(iteration, epochs * self.settings.iterations, self.learning_rate)


def train_head(
    dataset: DatasetSpec,
    plan: Plan,
    configuration: str,
    fold: str | int,
    options: TrainingOptions | None = None,
    folders: Folders | None = None,
    lessons: Lessons | None = None,
    start: Path | None = None,
) -> Path:
    """Train a head on one fold and return the fold's folder; what the embedding cache lacks is encoded first.

    Where the encoder learns too, nothing is: slices are augmented anew and go through it in every iteration.

    In a process group of torch (see `team`) all its processes must call this; the first one writes.

    Args:
        configuration: a name in the plan, such as "cnn".
        fold: 0 .. 4, or "all" for no validation part.
        lessons: what unlabelled cases teach, exactly where `options.unlabelled` asks for it;
            `inference.validate.train_and_validate` makes them.
        start: model.safetensors of the trained head to begin with, exactly where `options.from_head` asks for it.

    Raises:
        BusyError: another process is training this fold.
        ModelError: the plan does not fit the other folds or the checkpoint, or the loss is no number.
        PlanError: no such configuration, a case is not preprocessed, or another training of this fold has finished.
        UsageError: no such fold or pretrained part, not so many patients, or the options contradict each other.
        WeightsError: the encoder's weights are missing, or a pretrained network does not fit.
    """
    begin, team = time.monotonic(), this_team()
    options, folders = options or TrainingOptions(), folders or find_folders()
    assert (lessons is not None) == options.unlabelled, "unlabelled cases teach by pseudo-labels"
    assert (start is not None) == options.from_head, "a trained head is at hand where it is asked for"
    plan = plan.for_configuration(configuration, options.tuning, options.prompt_kind)
    settings = plan.configuration(configuration)
    check_tuning(settings.tuning, settings.head, f"{configuration}: tuning")
    plan.largest_only()  # names a class that does not exist before hours of training
    split = training_split(dataset, str(fold), options, folders)
    _check_pretrained(dataset, split, plan, settings, options)
    records = records_of(dataset, split.train, folders)
    find_weights(plan.encoding.encoder, plan.encoding.weights_file)  # what is missing is named before a file is written
    model = ModelFolder(folders.results / dataset.name / options.run_name(configuration))
    team.check_batch(_labelled_inputs(settings, lessons))
    start = start if lessons is None else lessons.start
    digest = _digest(plan, settings, options, records, lessons, start)
    busy = "another process is training this fold. Wait until it has finished."
    with alone(model.fold(str(fold)), busy) if team.leads else nullcontext():
        folder = model.fold(str(fold))
        if team.leads:
            prepare_fold(model, str(fold), plan, options, _training(digest, settings, options))
        team.wait()
        if (folder / "model.safetensors").exists():
            log.info("%s: already trained (--overwrite trains it anew)", folder)
            return folder
        source = EncoderSource(plan.encoding, options.device)
        deadline = math.inf if options.max_minutes is None else begin + 60 * options.max_minutes
        run = _Run(plan, settings, options, folder, source, digest, deadline, lessons, start, team)
        _train(run, dataset, split, records, folders)
    return folder


def _train(run: _Run, dataset: DatasetSpec, split: Split, records: Sequence[StoredCase], folders: Folders) -> None:
    """Encode what the cache lacks, train, and write the fold's files, the head last: where it lies, all is done."""
    begin = time.monotonic()
    plan, options, lessons, team = run.plan, run.options, run.lessons, run.team
    inputs = sum(count_inputs(case.properties.shape, plan.encoding) for case in records)
    views = 0 if run.fresh_views else _views_in_time(run, dataset, split, folders, plan.encoding.views_for(inputs))
    batches: BatchSource = (
        _cached(run, dataset, split, folders, views) if views else _fresh_slices(run, dataset, split, folders)
    )
    if (prompts := run.settings.prompts) is not None:
        batches = PromptedBatches(batches, plan.label_set, prompts)
    more = None if lessons is None else _taught_batches(run, dataset, lessons, folders)
    encoded = time.monotonic()
    if team.leads and encoded > run.deadline:
        log.warning(
            "%s: %.1f minutes are over before training begins, the limit is %g; one epoch is trained all the same. "
            "What is encoded is kept for the next time.",
            *(run.folder, (encoded - begin) / 60, options.max_minutes),
        )
    patients = count_patients(split, dataset, folders)
    epochs = run.settings.epochs_for(inputs, patients)
    log.debug("%d encoder inputs of %d patients: %d epochs by the plan", inputs, patients, epochs)
    state = _initial_state(run, options.epochs or epochs)
    run.course.resume(state, options.epochs)
    if not team.leads:  # dropout of its own; the first process's is that of a process alone
        torch.manual_seed(hash((options.seed, state.iteration, team.share.index)))
    log.debug("%s", canonical(run.settings))
    _optimize(run, state, batches, more)
    if team.leads:
        write_json(run.folder / "run.json", sealed(_manifest(run, split, views, state, encoded - begin)))
        _save_model(run, state)
    team.wait()


def _pretrained(settings: Configuration, options: TrainingOptions) -> PretrainedRecord | None:
    return None if options.pretrained is None else find_head(options.pretrained, settings.head)


def _check_pretrained(
    dataset: DatasetSpec, split: Split, plan: Plan, settings: Configuration, options: TrainingOptions
) -> None:
    """Refuse a pretrained part that does not fit, and say so where the fold holds out what a network has seen."""
    part = _pretrained(settings, options)
    network = plan.encoding.encoder if part is None else part.name
    seen = [] if options.trial else seen_among(network, dataset.name, split.val)  # a trial is on training patients
    if seen:
        log.warning(
            "%s was pretrained on the images of %d of the %d cases that this fold holds out: its figures flatter. "
            "Pretrain with --fold for this fold.",
            *(network, len(seen), len(split.val)),
        )


def _fresh_slices(run: _Run, dataset: DatasetSpec, split: Split, folders: Folders) -> FreshSlices:
    """Return slices of the training cases that are augmented anew in every batch, and are to be encoded yet."""
    log.info("training on %d cases, a fresh view of each slice in every batch", len(split.train))
    root = cases_folder(dataset, folders)
    return FreshSlices([root / case for case in split.train], run.plan.label_set, run.plan.encoding)


def _views_in_time(run: _Run, dataset: DatasetSpec, split: Split, folders: Folders, views: int) -> int:
    """Return how many of the planned views of each slice there are once training must begin, and encode them so far."""
    if (minutes := run.options.max_minutes) is None:
        return views
    until = run.deadline - 60 * minutes * TRAINING_SHARE
    mine = run.team.share.of(split.train)
    there = embed_in_time(dataset, run.plan, folders, mine, views, run.options.device, until)
    there = run.team.agreed(there, min)
    if there < views:
        log.info("the time limit allows %d of %d views of each slice", there, views)
    return there


def _cached(run: _Run, dataset: DatasetSpec, split: Split, folders: Folders, views: int) -> CachedBatches:
    """Return embeddings of the training cases; of those that are missing each process encodes its share."""
    log.info("training on %d cases, %d views of each slice", len(split.train), views)
    plan, device, team = run.plan, run.options.device, run.team
    if team.share != WHOLE:
        embed_dataset(dataset, plan, folders, team.share.of(split.train), views, device)
        team.wait()
    entries = embed_dataset(dataset, plan, folders, split.train, views, device)
    return CachedBatches(entries, plan.label_set, run.settings.crop)


def _taught_batches(run: _Run, dataset: DatasetSpec, lessons: Lessons, folders: Folders) -> PseudoLabelledBatches:
    plan = run.plan
    log.info("and on pseudo-labels of %d unlabelled cases", len(lessons.cases))
    entries = embed_poses(dataset, plan, folders, lessons.cases, plan.encoding.all_poses, run.options.device)
    grids = [
        tile_grid(record.properties.shape[1:], plan.encoding) for record in records_of(dataset, lessons.cases, folders)
    ]
    maps = [lessons.read(case) for case in lessons.cases]
    cases = [PseudoLabelledCase(*parts) for parts in zip(entries, maps, grids, strict=True)]
    return PseudoLabelledBatches(cases, unknown_value(plan.label_set), run.settings.crop)


def _digest(
    plan: Plan,
    settings: Configuration,
    options: TrainingOptions,
    records: Sequence[StoredCase],
    lessons: Lessons | None,
    start: Path | None,
) -> str:
    encoding, recipe = replace(plan.encoding, weights=None), replace(settings, epochs=0, maximum_epochs=0)
    weights = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    labels = list(plan.labels.items()), plan.regions_class_order
    contents = [record.key for record in records]
    files = [] if start is None else [start, *([] if lessons is None else map(lessons.file, lessons.cases))]
    taught = sha256_of_files(files) if files else None
    pretrained = _pretrained(settings, options)
    more = [*(["fresh views"] if options.fresh_views else []), *([] if pretrained is None else [pretrained.sha256])]
    return settings_digest(encoding, recipe, weights, labels, options.seed, contents, taught, *more)


def _training(digest: str, settings: Configuration, options: TrainingOptions) -> str:
    """Return the digest of all that a result depends on, the length of the training included."""
    return settings_digest(digest, settings, options.epochs, options.max_minutes)


def _optimize(run: _Run, state: TrainingState, batches: BatchSource, unlabelled: BatchSource | None) -> None:
    settings, device, team = run.settings, torch.device(run.options.device), run.team
    loss_function = SegmentationLoss(run.plan.label_set).to(device)
    channels = head_shape(run.plan).channels
    lesson = partial(unlabelled_loss, mixed_precision=run.mixed_precision, channels=channels)
    size = _labelled_inputs(settings, run.lessons)
    draw = partial(_draw, batches, unlabelled, run.options.seed, size, team.share)

    def learn(
        model: nn.Module, drawn: tuple[Batch, Batch | None, np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        batch, taught, rng = drawn
        if run.fresh_views:
            batch = _encoded(run, batch, rng)  # unchanged, if the model encodes them itself
        *inputs, labels = (part.to(device) for part in batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=run.mixed_precision):
            logits = model(*inputs)
        logits, labels = team.gathered(logits), team.gathered(labels)
        loss = loss_function(logits, labels)
        if taught is not None:
            seen, guessed = (part.to(device) for part in taught)
            more = lesson(state.model, seen, guessed, loss_function, rng)
            loss = loss + more / team.share.count  # of the same whole batch in every process
        dice = foreground_dice(logits, labels, loss_function.members, loss_function.exclusive)
        return loss, {"batch_dice": dice}

    optimize(run.course, state, draw, learn)


def _labelled_inputs(settings: Configuration, lessons: Lessons | None) -> int:
    """Return how many an iteration takes: a batch, or half of one beside as many pseudo-labelled inputs."""
    return settings.batch_size if lessons is None else max(1, settings.batch_size // 2)


def _draw(
    batches: BatchSource, unlabelled: BatchSource | None, seed: int, size: int, share: Part, iteration: int
) -> tuple[Batch, Batch | None, np.random.Generator]:
    """Return the batch of an iteration, one of unlabelled cases if there are any, and the generator that drew them."""
    rng = np.random.default_rng([seed, iteration])
    return batches.draw(rng, size, share), None if unlabelled is None else unlabelled.draw(rng, size), rng


def _encoded(run: _Run, batch: Batch, rng: np.random.Generator) -> Batch:
    """Return the embeddings of fresh slices, or parts of them, with their labels."""
    images, *prompts, labels = batch
    embeddings = run.source.encode_tensor(images.to(run.options.device))
    embeddings, labels = cut_batch(rng, run.settings.crop, embeddings, labels, run.plan.label_set.foreground_values)
    return (embeddings, *prompts, labels)


def poly_rate(iteration: int, total: int, highest: float) -> float:
    """Return the rate of an iteration while pretrained parts learn: linear warm-up, then down to zero as published.

    Of a training of less than 1000 iterations the warm-up takes a fifth.
    """
    warm_up = min(TUNED_WARM_UP, total // 5)
    if iteration < warm_up:
        return highest * (iteration + 1) / warm_up
    return highest * (1.0 - (iteration - warm_up) / (total - warm_up)) ** TUNED_POWER


def _initial_state(run: _Run, epochs: int) -> TrainingState:
    torch.manual_seed(run.options.seed)
    settings, start = run.settings, None if run.start is None else load_tensors(run.start)[0]
    encoder = base_encoder(run.plan, run.source)
    model = build_model(run.plan, settings.head, settings.settings, settings.tuning, encoder, start)
    if (pretrained := run.pretrained) is not None:
        begin_with(model, pretrained)
    optimizer = torch.optim.AdamW(_parameter_groups(run, model))
    return TrainingState(model, optimizer, iteration=0, epochs=epochs, log=[], seconds=0.0, sums={})


def _parameter_groups(run: _Run, model: nn.Module) -> list[dict[str, Any]]:
    """Return what learns: of the head, and of the encoder, whose rate is the head's times a factor."""
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_encoder, of_head = (
        [parameter for name, parameter in learning if name.startswith(ENCODER) == wanted] for wanted in (True, False)
    )
    groups = [{"params": of_head, "weight_decay": run.settings.weight_decay, "factor": 1.0}]
    if (tuning := run.settings.tuning) is not None and of_encoder:
        factor = tuning.encoder_rate / run.learning_rate
        groups.append({"params": of_encoder, "weight_decay": tuning.weight_decay, "factor": factor})
    return groups


def trained_by(plan: Plan) -> dict[str, Any]:
    """Return the decisions without which a head's outputs mean nothing; they stand in its file too."""
    encoding = plan.encoding
    return {
        "preprocessing": plan.preprocessing,
        "inputs": (encoding.encoder, encoding.input_size, encoding.overlap, encoding.rgb, encoding.pixels),
        "labels": [*plan.labels.items()],
        "regions_class_order": plan.regions_class_order,
    }


def _head_metadata(run: _Run) -> dict[str, Any]:
    return {
        "version": MODEL_VERSION,
        "head": run.settings.head,
        "settings": run.settings.settings,
        **({} if run.settings.tuning is None else {"tuning": run.settings.tuning}),
        **_encoder_facts(run.plan),
        **trained_by(run.plan),
    }


def _encoder_facts(plan: Plan) -> dict[str, str]:
    sha256 = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    return {"encoder": plan.encoding.encoder, "encoder_sha256": sha256}


def _stored(run: _Run, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the encoder's checkpoint cannot give back: what learnt, and all of a head that was trained before."""
    tensors = learnt(model)
    if run.start is not None:
        tensors |= {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ENCODER)}
    return tensors


def _save_model(run: _Run, state: TrainingState) -> None:
    save_tensors(run.folder / "model.safetensors", _stored(run, state.model), _head_metadata(run))


def _manifest(run: _Run, split: Split, views: int, state: TrainingState, encoding_seconds: float) -> dict[str, Any]:
    return {
        "training": _training(run.digest, run.settings, run.options),
        "head_sha256": tensors_sha256(_stored(run, state.model), _head_metadata(run)),
        "trained_on": split.train,
        "unlabelled": () if run.lessons is None else run.lessons.cases,
        "held_out": split.val,
        "views": views,
        "options": to_json(run.options),
        "settings": to_json(run.settings),
        **_encoder_facts(run.plan),
        **({} if (part := run.pretrained) is None else {"pretrained": {"name": part.name, "sha256": part.sha256}}),
        "parameters": count_parameters(state.model),
        "precision": run.source.precision,
        "processes": run.team.share.count,
        "epochs": state.epochs,
        "iterations": state.iteration,
        "seconds": {"encoding": round(encoding_seconds, 1), "training": round(state.seconds, 1)},
        **run_facts(run.options.device),
    }
