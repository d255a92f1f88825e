"""Folds of cross-validation that keep the cases of one patient together."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autosam_net.errors import PlanError, UsageError
from autosam_net.jsonio import from_json, read_json

log = logging.getLogger(__name__)

FOLDS = 5
SPLIT_SEED = 12345  # nnU-Net's
PATIENT_PATTERN = r"^(?:sub-[A-Za-z0-9]+|(?:patient|subject|pat|subj)[-_]?\d+)(?=[-_])"
"""Names that say which patient a case is of: BIDS (`sub-01_ses-02`) and `patient001_frame01`."""


@dataclass(frozen=True)
class Split:
    """The cases of one fold: those trained on and those held out."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def group_cases(names: Sequence[str], pattern: str | None) -> dict[str, str]:
    """Return case -> group (patient): what `pattern` finds in the name, the whole name where it finds nothing.

    With several capture groups in the pattern the first counts; with none, the whole match.

    Raises:
        PlanError: the pattern is no regular expression.
    """
    if pattern is None:
        return {name: name for name in names}
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise PlanError(f"group_pattern {pattern!r} is no regular expression: {error}") from error
    matches = {name: expression.search(name) for name in names}
    return {name: (match.group(1 if expression.groups else 0) if match else name) for name, match in matches.items()}


def detect_group_pattern(names: Sequence[str]) -> str | None:
    """Return a pattern when the names follow a common habit and some patient has several cases."""
    if not all(re.search(PATIENT_PATTERN, name) for name in names):
        return None
    groups = set(group_cases(names, PATIENT_PATTERN).values())
    return PATIENT_PATTERN if len(groups) < len(names) else None


def make_splits(groups: Mapping[str, str], folds: int = FOLDS, seed: int = SPLIT_SEED) -> list[Split]:
    """Return the folds; every group is held out exactly once.

    With fewer groups than `folds` there are as many folds as groups. The order of `groups` does not matter.

    Args:
        groups: case -> group.

    Raises:
        PlanError: fewer than two groups, so that nothing can be held out.
    """
    names = sorted(set(groups.values()))
    if len(names) < 2:
        raise PlanError(
            "all labelled cases are of one patient: nothing can be held out. Label at least two patients, or correct "
            "group_pattern in dataset.json."
        )
    order = np.random.default_rng(seed).permutation(names)
    parts = [set(part.tolist()) for part in np.array_split(order, min(folds, len(names)))]
    return [
        Split(
            train=tuple(sorted(case for case, group in groups.items() if group not in part)),
            val=tuple(sorted(case for case, group in groups.items() if group in part)),
        )
        for part in parts
    ]


def check_splits(splits: Sequence[Split], groups: Mapping[str, str], where: str) -> None:
    """Refuse splits that are empty, name unknown cases or leak a group from training into validation.

    Raises:
        PlanError: names the fold and the case or group.
    """
    if not splits:
        raise PlanError(f"{where}: no fold in it. Correct or remove the file.")
    for fold, split in enumerate(splits):
        unknown = sorted({*split.train, *split.val} - set(groups))
        if unknown:
            raise PlanError(f"{where}: fold {fold} names case {unknown[0]}, which is not in the data set")
        leaking = {groups[case] for case in split.train} & {groups[case] for case in split.val}
        if not split.train:
            raise PlanError(f"{where}: fold {fold} trains on no case. Correct or remove the file.")
        if twice := sorted(case for case, count in Counter([*split.train, *split.val]).items() if count > 1):
            raise PlanError(f"{where}: fold {fold} names case {twice[0]} twice. Correct or remove the file.")
        if leaking:
            raise PlanError(f"{where}: fold {fold} has {sorted(leaking)[0]} in both training and validation")


def load_splits(path: Path) -> list[Split]:
    """Return the folds of a splits_final.json.

    Raises:
        PlanError: it is missing or not as nnU-Net writes it.
    """
    if not path.is_file():
        raise PlanError(f"{path}: no such file. Run autosam_plan_and_preprocess first.")
    splits: list[Split] = from_json(list[Split], read_json(path), str(path))
    log.debug("read: %s", path)
    return splits


def select_fold(splits: Sequence[Split], fold: str) -> Split:
    """Return the split of a fold: a number, or `all` (train on everything, hold out nothing).

    Raises:
        UsageError: there is no such fold.
    """
    if fold == "all":
        return Split(train=tuple(sorted({*splits[0].train, *splits[0].val})), val=())
    if not fold.isdigit() or int(fold) >= len(splits):
        raise UsageError(f"fold {fold} does not exist; this data set has folds 0-{len(splits) - 1} and all")
    return splits[int(fold)]


def held_out_cases(splits: Sequence[Split], fold: str) -> tuple[str, ...]:
    """Return the cases that a fold holds out.

    Raises:
        UsageError: there is no such fold, or it is `all`, which holds nothing out.
    """
    if not (cases := select_fold(splits, fold).val):
        raise UsageError(f"fold {fold} holds no case out, so there is nothing to compare with. Give a number (0).")
    return cases


def draw_labelled(cases: Sequence[str], groups: Mapping[str, str], count: int, seed: int) -> tuple[str, ...]:
    """Return the cases of `count` groups drawn with `seed`; more labels with the same seed contain fewer.

    Raises:
        UsageError: there are not so many groups.
    """
    present = sorted({groups[case] for case in cases})
    if not 1 <= count <= len(present):
        raise UsageError(f"--labelled {count}: this fold trains on {len(present)} patients. Give 1 to {len(present)}.")
    drawn = set(np.random.default_rng(seed).permutation(present)[:count].tolist())
    return tuple(case for case in cases if groups[case] in drawn)
