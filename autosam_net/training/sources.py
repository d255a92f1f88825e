"""Where the batches of a training come from: cached embeddings, fresh slices, and unlabelled cases."""

from __future__ import annotations

import logging

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.splits import Split
from autosam_net.embedding.embed import embed_dataset, embed_in_time, embed_poses
from autosam_net.parallel import WHOLE
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder
from autosam_net.preprocessing.slices import tile_grid
from autosam_net.training.batches import BatchSource, CachedBatches, PromptedBatches
from autosam_net.training.cases import records_of
from autosam_net.training.fold_training import FoldTraining
from autosam_net.training.slices import FreshSlices
from autosam_net.training.unlabelled import Lessons, PseudoLabelledBatches, PseudoLabelledCase, unknown_value

log = logging.getLogger(__name__)
TRAINING_SHARE = 0.5  # of a time limit; what it leaves is for the views of the slices, of which one is made in any case


def labelled_batches(
    run: FoldTraining, dataset: DatasetSpec, split: Split, folders: Folders, inputs: int
) -> tuple[BatchSource, int]:
    """Return batches of the training cases, and how many cached views of each slice they are drawn from, if any.

    What the cache lacks is encoded first.

    Args:
        inputs: encoder inputs of the training cases.
    """
    batches: BatchSource
    if run.fresh_views:
        batches, views = _fresh_slices(run, dataset, split, folders), 0
    else:
        batches, views = _cached(run, dataset, split, folders, run.plan.encoding.views_for(inputs))
    if (prompts := run.settings.prompts) is not None:
        batches = PromptedBatches(batches, run.plan.label_set, prompts)
    return batches, views


def taught_batches(
    run: FoldTraining, dataset: DatasetSpec, lessons: Lessons, folders: Folders
) -> PseudoLabelledBatches:
    """Return batches of unlabelled cases with their pseudo-labels; what the cache lacks is encoded first."""
    plan = run.plan
    log.info("and on pseudo-labels of %d unlabelled cases", len(lessons.cases))
    entries = embed_poses(dataset, plan, folders, lessons.cases, plan.encoding.all_poses, run.options.device)
    grids = [
        tile_grid(record.properties.shape[1:], plan.encoding) for record in records_of(dataset, lessons.cases, folders)
    ]
    maps = [lessons.read(case) for case in lessons.cases]
    cases = [PseudoLabelledCase(*parts) for parts in zip(entries, maps, grids, strict=True)]
    return PseudoLabelledBatches(cases, unknown_value(plan.label_set), run.settings.crop)


def _fresh_slices(run: FoldTraining, dataset: DatasetSpec, split: Split, folders: Folders) -> FreshSlices:
    """Return slices of the training cases that are augmented anew in every batch, and are to be encoded yet."""
    log.info("training on %d cases, a fresh view of each slice in every batch", len(split.train))
    root = cases_folder(dataset, folders)
    return FreshSlices([root / case for case in split.train], run.plan.label_set, run.plan.encoding)


def _cached(
    run: FoldTraining, dataset: DatasetSpec, split: Split, folders: Folders, planned: int
) -> tuple[CachedBatches, int]:
    """Return embeddings of the training cases, and of how many views of each slice: those planned, if time allows.

    Of what is missing each process encodes its share.
    """
    plan, device, team = run.plan, run.options.device, run.team
    mine, views = team.share.of(split.train), planned
    if (minutes := run.options.max_minutes) is None:
        entries = embed_dataset(dataset, plan, folders, mine, views, device)
    else:
        until = run.deadline - 60 * minutes * TRAINING_SHARE
        entries, views = embed_in_time(dataset, plan, folders, mine, views, device, until)
        views = team.agreed(views, min)
    if team.share != WHOLE:
        team.wait()
        entries = embed_dataset(dataset, plan, folders, split.train, views, device)
    if views < planned:
        log.info("the time limit allows %d of %d views of each slice", views, planned)
    log.info("training on %d cases, %d views of each slice", len(split.train), views)
    return CachedBatches(entries, plan.label_set, run.settings.crop), views
