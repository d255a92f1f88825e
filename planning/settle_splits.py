"""Decide which folds hold: those that came with the data, those made before, or new ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.splits import Split, check_splits, load_splits, make_splits
from autosam_net.errors import PlanError
from autosam_net.jsonio import write_json_if_changed
from autosam_net.paths import Folders

log = logging.getLogger("autosam_net.planning")

SPLITS_FILE = "splits_final.json"


def given_splits(dataset: DatasetSpec, groups: Mapping[str, str], folders: Folders) -> list[Split] | None:
    """Return the splits that came with the data: in the raw folder, or in nnU-Net's own preprocessed folder.

    nnU-Net's automatic splits go by case: where they take a patient apart they are left aside, with a message.

    Raises:
        PlanError: splits in the raw folder name a case that is not there, or take a group apart.
    """
    raw = dataset.folder / SPLITS_FILE
    if raw.is_file():
        splits = load_splits(raw)
        _check(splits, groups, raw)
        return splits
    theirs = folders.preprocessed.parent / dataset.name / SPLITS_FILE
    if folders.preprocessed.name != "autosam_net" or not theirs.is_file():
        return None
    try:
        splits = load_splits(theirs)
        _check(splits, groups, theirs)
    except PlanError as error:
        log.warning("%s. These splits are not used; new ones keep the cases of a group together.", error)
        return None
    return splits


def settle_splits(folder: Path, given: list[Split] | None, groups: Mapping[str, str], folds: int) -> list[Split]:
    """Write `splits_final.json` to `folder` and return the splits; those there are kept while they fit the cases.

    Raises:
        PlanError: splits there, edited by hand, take a group apart; or there are fewer than two groups.
    """
    path = folder / SPLITS_FILE
    splits = given or _kept(path, groups, folds) or make_splits(groups, folds)
    write_json_if_changed(path, splits)
    return splits


def _kept(path: Path, groups: Mapping[str, str], folds: int) -> list[Split] | None:
    if not path.is_file():
        return None
    splits = load_splits(path)
    cases = {case for split in splits for case in (*split.train, *split.val)}
    if cases != set(groups) or len(splits) != folds:
        log.info("%s: made anew for %d cases in %d folds", path, len(groups), folds)
        return None
    _check(splits, groups, path)
    return splits


def _check(splits: list[Split], groups: Mapping[str, str], path: Path) -> None:
    check_splits(splits, groups, str(path))
