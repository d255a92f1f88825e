"""Train a head on cached embeddings, or encoder and head on slices; `loop` has the loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autosam_net.data.configuration import Configuration
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Plan
from autosam_net.data.splits import Split
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.pretrained import seen_among
from autosam_net.encoders.tuning import ENCODER
from autosam_net.encoders.weights import find_weights
from autosam_net.files import alone
from autosam_net.jsonio import canonical, sealed, write_json
from autosam_net.parallel import Part
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import StoredCase
from autosam_net.preprocessing.slices import count_inputs
from autosam_net.training.batches import Batch, BatchSource
from autosam_net.training.build import base_encoder, begin_with, build_model, head_shape
from autosam_net.training.cases import count_patients, records_of, training_split
from autosam_net.training.check_plan import check_tuning
from autosam_net.training.checkpoint import TrainingState, load_tensors
from autosam_net.training.fold_training import FoldTraining, digest_of, digest_with_length, pretrained_part
from autosam_net.training.loop import optimize
from autosam_net.training.losses import SegmentationLoss, foreground_dice
from autosam_net.training.run import ModelFolder, TrainingOptions, prepare_fold
from autosam_net.training.slices import cut_batch
from autosam_net.training.sources import labelled_batches, taught_batches
from autosam_net.training.stored_model import manifest_of, save_model
from autosam_net.training.team import this_team
from autosam_net.training.unlabelled import Lessons, unlabelled_loss

log = logging.getLogger(__name__)


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
    digest = digest_of(plan, settings, options, records, lessons, start)
    busy = "another process is training this fold. Wait until it has finished."
    with alone(model.fold(str(fold)), busy) if team.leads else nullcontext():
        folder = model.fold(str(fold))
        if team.leads:
            prepare_fold(model, str(fold), plan, options, digest_with_length(digest, settings, options))
        team.wait()
        if (folder / "model.safetensors").exists():
            log.info("%s: already trained (--overwrite trains it anew)", folder)
            return folder
        source = EncoderSource(plan.encoding, options.device)
        deadline = math.inf if options.max_minutes is None else begin + 60 * options.max_minutes
        run = FoldTraining(plan, settings, options, folder, source, digest, deadline, lessons, start, team)
        _train(run, dataset, split, records, folders)
    return folder


def _train(
    run: FoldTraining, dataset: DatasetSpec, split: Split, records: Sequence[StoredCase], folders: Folders
) -> None:
    """Encode what the cache lacks, train, and write the fold's files, the head last: where it lies, all is done."""
    begin = time.monotonic()
    plan, options, lessons, team = run.plan, run.options, run.lessons, run.team
    inputs = sum(count_inputs(case.properties.shape, plan.encoding) for case in records)
    batches, views = labelled_batches(run, dataset, split, folders, inputs)
    more = None if lessons is None else taught_batches(run, dataset, lessons, folders)
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
        write_json(run.folder / "run.json", sealed(manifest_of(run, split, views, state, epochs, encoded - begin)))
        save_model(run, state)
    team.wait()


def _check_pretrained(
    dataset: DatasetSpec, split: Split, plan: Plan, settings: Configuration, options: TrainingOptions
) -> None:
    """Refuse a pretrained part that does not fit, and say so where the fold holds out what a network has seen."""
    part = pretrained_part(settings, options)
    network = plan.encoding.encoder if part is None else part.name
    seen = [] if options.trial else seen_among(network, dataset.name, split.val)  # a trial is on training patients
    if seen:
        log.warning(
            "%s was pretrained on the images of %d of the %d cases that this fold holds out: its figures flatter. "
            "Pretrain with --fold for this fold.",
            *(network, len(seen), len(split.val)),
        )


def _optimize(run: FoldTraining, state: TrainingState, batches: BatchSource, unlabelled: BatchSource | None) -> None:
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


def _encoded(run: FoldTraining, batch: Batch, rng: np.random.Generator) -> Batch:
    """Return the embeddings of fresh slices, or parts of them, with their labels."""
    images, *prompts, labels = batch
    embeddings = run.source.encode_tensor(images.to(run.options.device))
    embeddings, labels = cut_batch(rng, run.settings.crop, embeddings, labels, run.plan.label_set.foreground_values)
    return (embeddings, *prompts, labels)


def _initial_state(run: FoldTraining, epochs: int) -> TrainingState:
    torch.manual_seed(run.options.seed)
    settings, start = run.settings, None if run.start is None else load_tensors(run.start)[0]
    encoder = base_encoder(run.plan, run.source)
    model = build_model(run.plan, settings.head, settings.settings, settings.tuning, encoder, start)
    if (pretrained := run.pretrained) is not None:
        begin_with(model, pretrained)
    optimizer = torch.optim.AdamW(_parameter_groups(run, model))
    return TrainingState(model, optimizer, iteration=0, epochs=epochs, log=[], seconds=0.0, sums={})


def _parameter_groups(run: FoldTraining, model: nn.Module) -> list[dict[str, Any]]:
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
