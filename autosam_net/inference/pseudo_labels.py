"""Let a trained head label the unlabelled cases of its fold, as far as it is sure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.case import CaseProperties
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import Plan, settings_digest
from autosam_net.embedding.embed import embed_poses
from autosam_net.embedding.source import EncoderSource
from autosam_net.evaluation.postprocessing import keep_largest
from autosam_net.files import remove_leftovers, sha256_of_files
from autosam_net.inference.predict import slice_probabilities
from autosam_net.inference.trained_head import load_head
from autosam_net.parallel import progress
from autosam_net.paths import Folders
from autosam_net.preprocessing.geometry import resize_labels
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.training.unlabelled import CONFIDENCE, Lessons, unknown_value


def write_lessons(
    dataset: DatasetSpec,
    plan: Plan,
    taught: Path,
    cases: Sequence[str],
    device: str,
    folders: Folders,
) -> Lessons:
    """Write what a trained head is sure of in unlabelled cases; what an earlier run wrote with this head is kept.

    Args:
        plan: as the head's configuration follows it (`Plan.for_configuration`).
        taught: the fold's folder of the head, below which the pseudo-labels go.

    Raises:
        ModelError: the head's file is damaged, or was trained by another plan.
        PlanError: a case is not preprocessed.
    """
    source, model = EncoderSource(plan.encoding, device), taught / "model.safetensors"
    head = load_head(model, plan, source)
    poses, largest = plan.encoding.all_poses, plan.largest_only()
    made_from = sha256_of_files([model]), poses, largest, CONFIDENCE
    lessons = Lessons(model, tuple(cases), taught / "pseudo_labels" / settings_digest(*made_from)[:12])
    remove_leftovers(lessons.folder)
    todo = [case for case in cases if not lessons.holds(case)]
    entries = embed_poses(dataset, plan, folders, todo, poses, device)
    pairs = list(zip(todo, entries, strict=True))
    for name, entry in progress(pairs, "label", len(pairs), name=lambda pair: pair[0]):
        case = load_case(cases_folder(dataset, folders) / name)
        slices = slice_probabilities(case, [head], plan.label_set, source, entry, plan.encoding.poses)
        lessons.write(name, sure_labels(slices, case.properties, plan.label_set, largest))
    return lessons


def sure_labels(
    slices: Iterable[NDArray[np.float32]],
    properties: CaseProperties,
    labels: LabelSet,
    largest_only: Sequence[Sequence[int]],
) -> NDArray[np.integer]:
    """Return pseudo-labels `(Z, Y, X)` on the preprocessed grid, `unknown_value` where they are not sure.

    Sure is what the probabilities say with `CONFIDENCE`, post-processing left out what it takes away.

    Args:
        slices: probabilities `(outputs, Y, X)` of each slice on the cropped raw grid.
        largest_only: groups of values of which only the largest connected component is kept.
    """
    decoded, sure = zip(*((labels.decode(one), _certainty(one, labels) >= CONFIDENCE) for one in slices), strict=True)
    plain = np.stack(decoded)
    kept = keep_largest(plain, largest_only)
    known = np.stack(sure) & (kept == plain)
    kept = kept.astype(np.min_scalar_type(unknown_value(labels)))
    kept[~known] = unknown_value(labels)
    return resize_labels(kept, properties.shape[1:])


def _certainty(probabilities: NDArray[np.float32], labels: LabelSet) -> NDArray[np.float32]:
    """Return the probability of the decoded label; of regions, that of the least certain one."""
    if labels.has_regions:
        probabilities = np.maximum(probabilities, 1 - probabilities)
        return probabilities.min(axis=0)
    return probabilities.max(axis=0)
