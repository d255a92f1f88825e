"""The unadapted SAM on a fold's held-out cases, prompted from their references: a yardstick, not a method."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import PLAIN, Plan
from autosam_net.data.splits import held_out_cases, load_splits
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import EncoderSource
from autosam_net.embedding.views import view_seed
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.evaluation.report import Summary, write_summary
from autosam_net.inference.predict import assemble_slices, cached_reader
from autosam_net.inference.prompted_decoder import PromptedDecoder
from autosam_net.inference.prompts import PromptOptions, draw_box, draw_points
from autosam_net.inference.validate import validate_cases
from autosam_net.jsonio import sealed, write_json
from autosam_net.paths import Folders
from autosam_net.preprocessing.slices import tile_grid
from autosam_net.training.manifest import run_facts

log = logging.getLogger(__name__)


def zero_shot_fold(
    dataset: DatasetSpec, plan: Plan, fold: str, options: PromptOptions, device: str, folders: Folders
) -> tuple[Path, Summary]:
    """Segment a fold's held-out cases with SAM as it is; return `zero_shot_.../fold_N/validation` and its summary.

    The prompts are drawn from the references: the figures bound what a user reaches who does not know the answer.

    Raises:
        DatasetError: a case has no label file.
        PlanError: a case is not preprocessed.
        UsageError: there is no such fold, or it holds nothing out.
        WeightsError: the encoder's weights are missing, or have no prompt encoder and mask decoder.
    """
    begin = time.monotonic()
    cases = held_out_cases(load_splits(folders.preprocessed / dataset.name / "splits_final.json"), fold)
    trained_with = ENCODERS.get(plan.encoding.encoder).prompts
    if options.kind not in trained_with:
        log.warning("%s was trained with %s prompts only", plan.encoding.encoder, " and ".join(trained_with))
    plan = replace(plan, encoding=replace(plan.encoding, pixels=False))  # SAM's decoder takes embeddings alone
    source = EncoderSource(plan.encoding, device)
    decoder = PromptedDecoder(source.encoder).to(device)
    folder = folders.results / dataset.name / options.run_name / f"fold_{fold}"
    slices_of = partial(prompted_slices, decoder=decoder, labels=plan.label_set, source=source, options=options)
    summary = validate_cases(dataset, plan, folder / "validation", cases, slices_of, device, folders)
    write_summary(summary, folder / "validation")
    record = {
        "prompts": "drawn from the reference labels",
        "options": options,
        "encoder": source.encoder.name,
        "encoder_sha256": source.encoder.weights_sha256,
        "held_out": cases,
        "seconds": round(time.monotonic() - begin, 1),
        **run_facts(device),
    }
    write_json(folder / "run.json", sealed(record))
    return folder / "validation", summary


@torch.no_grad()
def prompted_slices(
    case: PreprocessedCase,
    entries: Mapping[str, CachedEmbedding],
    decoder: PromptedDecoder,
    labels: LabelSet,
    source: EncoderSource,
    options: PromptOptions,
) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities `(outputs, Y, X)` of every slice of a case on the cropped raw grid.

    Every encoder input is prompted by what the reference has in it: a tile of a slice for itself, and for a class or
    region that is not in it there is no prompt and no mask.
    """
    entry, grid = entries[PLAIN], tile_grid(case.properties.shape[1:], source.encoding)
    read = cached_reader(entry, source.device)

    def tile(index: int) -> torch.Tensor:
        rng = np.random.default_rng(view_seed(case.properties.name, index, options.seed))
        reference = entry.labels.row(index)
        masks = np.stack([np.isin(reference, values) for values in labels.targets.values()])  # (classes, S, S)
        logits = prompted_logits(decoder, read([index])[0], masks, options, rng)
        if labels.has_regions:
            return torch.sigmoid(logits)
        logits = cut_overlaps(logits)
        return torch.softmax(torch.cat([torch.zeros_like(logits[:1]), logits]), 0)  # the background's logit is 0

    tiles = ([tile(index)] for index in range(entry.labels.shape[0]))
    yield from assemble_slices(tiles, grid, case.properties.cropped_shape[1:])


def prompted_logits(
    decoder: PromptedDecoder,
    embedding: torch.Tensor,
    masks: NDArray[np.bool_],
    options: PromptOptions,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Return logits `(classes, S, S)` for prompts drawn from `masks` `(classes, S, S)`; -inf for an empty mask."""
    logits = torch.full(masks.shape, -torch.inf, device=embedding.device)
    present = np.flatnonzero(masks.any(axis=(1, 2)))
    if len(present) == 0:
        return logits
    if options.kind == "box":
        boxes = np.stack([draw_box(masks[index], options.jitter, rng) for index in present])
        logits[present] = decoder(embedding, boxes=torch.from_numpy(boxes).to(embedding.device))
    else:
        points = np.stack([draw_points(masks[index], options.points, rng) for index in present])
        logits[present] = decoder(embedding, points=torch.from_numpy(points).to(embedding.device))
    return logits


def cut_overlaps(logits: torch.Tensor) -> torch.Tensor:
    """Return logits `(classes, S, S)` of masks that no longer overlap: where they do, the smaller mask lies on top.

    SAM's logits say where each mask ends, not which mask wins. By the highest logit, the ventricle would lose half of
    its pixels to the mask of the muscle around it, which SAM fills (three cases of ACDC: Dice 0.59 instead of 0.97).
    """
    logits = logits.clone()
    taken = torch.zeros_like(logits[0], dtype=torch.bool)
    inside = logits > 0
    for index in inside.sum((1, 2)).argsort().tolist():
        logits[index][taken] = -torch.inf
        taken |= inside[index]
    return logits
