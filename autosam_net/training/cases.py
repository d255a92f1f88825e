"""Which cases a fold trains on, with and without their labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autosam_net.data.configuration import TRIAL_PART
from autosam_net.data.dataset import DatasetSpec, unlabelled_scans
from autosam_net.data.fingerprint import load_groups
from autosam_net.data.plan import Plan
from autosam_net.data.splits import (
    Split,
    check_splits,
    detect_group_pattern,
    draw_labelled,
    group_cases,
    load_splits,
    select_fold,
)
from autosam_net.errors import UsageError
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import StoredCase, cases_folder, load_record
from autosam_net.preprocessing.slices import count_inputs
from autosam_net.training.run import TrainingOptions

log = logging.getLogger(__name__)


def records_of(dataset: DatasetSpec, cases: Sequence[str], folders: Folders) -> list[StoredCase]:
    """Return the records of preprocessed cases.

    Raises:
        PlanError: one is not preprocessed.
    """
    return [load_record(cases_folder(dataset, folders) / case) for case in cases]


def training_split(dataset: DatasetSpec, fold: str, options: TrainingOptions, folders: Folders) -> Split:
    """Return the cases of a fold, its training part reduced to the labelled patients that the options ask for.

    Of a trial both parts are of these patients.

    Raises:
        PlanError: the splits name a case that is not there, or take a patient apart.
        UsageError: there is no such fold, or not so many patients.
    """
    file, patients = folders.preprocessed / dataset.name / "splits_final.json", patients_of(dataset, folders)
    splits = load_splits(file)
    check_splits(splits, patients, str(file))
    split = select_fold(splits, fold)
    if options.labelled is not None:
        split = Split(draw_labelled(split.train, patients, options.labelled, options.seed), split.val)
    return _trial_part(split, patients, options.seed) if options.trial else split


def _trial_part(split: Split, patients: Mapping[str, str], seed: int) -> Split:
    """Return the training part of a split in two: a fifth of its patients, one at least, is held out."""
    count = len({patients[case] for case in split.train})
    kept = draw_labelled(split.train, patients, count - max(1, count // TRIAL_PART), seed)
    return Split(kept, tuple(case for case in split.train if case not in kept))


def unlabelled_part(
    dataset: DatasetSpec, plan: Plan, fold: str, options: TrainingOptions, folders: Folders
) -> tuple[str, ...]:
    """Return the cases that are used without labels: of the fold's other patients, and the scans in imagesUn.

    As many as the plan's budget of encoder passes allows, all poses counted: first one case of every patient, drawn
    with the seed, then a second of every patient, and so on.

    Raises:
        UsageError: they are asked for, and there are none.
    """
    if not options.unlabelled:
        return ()
    whole = training_split(dataset, fold, replace(options, labelled=None), folders).train
    split = training_split(dataset, fold, options, folders)
    labelled, groups = set(split.train), patients_of(dataset, folders)
    of_scans = scans_to_learn_from(dataset, split, groups, [scan.name for scan in unlabelled_scans(dataset)])
    cases = tuple(case for case in whole if case not in labelled) + tuple(of_scans)
    if not cases:
        raise UsageError(
            "--unlabelled: all patients of this fold are labelled, and there is no scan in imagesUn. Put scans there, "
            "or give --labelled N with fewer patients."
        )
    records = records_of(dataset, cases, folders)
    counts = [count_inputs(record.properties.shape, plan.encoding) for record in records]
    inputs = dict(zip(cases, counts, strict=True))
    budget = plan.encoding.slice_budget // len(plan.encoding.all_poses)
    return choose_unlabelled(inputs, {**groups, **of_scans}, budget, options.seed)


def choose_unlabelled(
    inputs: Mapping[str, int], patients: Mapping[str, str], budget: int, seed: int
) -> tuple[str, ...]:
    """Return the cases to learn from without labels, one of every patient before a second of any.

    Args:
        inputs: case -> its encoder inputs.
        patients: case -> patient.
        budget: inputs of all chosen cases together; the first case is always taken.
    """
    rng = np.random.default_rng(seed)
    drawn = [sorted(inputs)[index] for index in rng.permutation(len(inputs))]
    seen: Counter[str] = Counter()
    turns = {}
    for case in drawn:
        turns[case] = seen[patients[case]]
        seen[patients[case]] += 1
    queue = sorted(drawn, key=lambda case: turns[case])  # stable: patients stay in the order drawn
    spent = np.cumsum([inputs[case] for case in queue])
    return tuple(sorted(queue[: max(1, int((spent <= budget).sum()))]))


def scans_to_learn_from(
    dataset: DatasetSpec, split: Split, groups: Mapping[str, str], names: Sequence[str], place: str = "imagesUn"
) -> dict[str, str]:
    """Return scan -> patient, by its name, of the scans without labels whose patients the fold does not hold out.

    Args:
        groups: case -> patient of the labelled cases.
        names: of the scans in `place`.
    """
    patients = group_cases(names, dataset.group_pattern or detect_group_pattern(sorted(groups)))
    held_out = {groups[case] for case in split.val}
    allowed = {scan: patient for scan, patient in patients.items() if patient not in held_out}
    if len(allowed) < len(patients):
        left_out = len(patients) - len(allowed)
        log.info("%d scans in %s are left out: the fold holds out their patients", left_out, place)
    return allowed


def patients_of(dataset: DatasetSpec, folders: Folders) -> Mapping[str, str]:
    """Return case -> patient, as the fingerprint has it."""
    return load_groups(folders.preprocessed / dataset.name / "dataset_fingerprint.json")


def count_patients(split: Split, dataset: DatasetSpec, folders: Folders) -> int:
    """Return the number of patients that a fold trains on."""
    groups = patients_of(dataset, folders)
    return len({groups[case] for case in split.train})
