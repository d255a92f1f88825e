from __future__ import annotations

import json
from pathlib import Path

import pytest

from autosam_net.data.splits import Split, load_splits, make_splits
from autosam_net.errors import PlanError
from autosam_net.jsonio import write_json
from autosam_net.paths import Folders
from planning.settle_splits import given_splits, settle_splits
from tests.planning.conftest import RawDataset

GROUPS = {f"p{patient}_{frame}": f"p{patient}" for patient in range(6) for frame in "ab"}
LEAKING = [Split(("p0_a", "p1_a"), ("p0_b",))]
MINE = [Split(tuple(sorted(set(GROUPS) - {"p0_a", "p0_b"})), ("p0_a", "p0_b"))]


def test_new_splits_are_written_once(tmp_path: Path) -> None:
    splits = settle_splits(tmp_path, None, GROUPS, 5)
    file = tmp_path / "splits_final.json"
    assert splits == load_splits(file) == make_splits(GROUPS, 5)
    changed = file.stat().st_mtime_ns
    assert settle_splits(tmp_path, None, GROUPS, 5) == splits
    assert file.stat().st_mtime_ns == changed


def test_splits_edited_by_hand_are_kept_while_they_fit(tmp_path: Path) -> None:
    edited = list(reversed(make_splits(GROUPS, 5)))
    write_json(tmp_path / "splits_final.json", edited)
    assert settle_splits(tmp_path, None, GROUPS, 5) == edited
    fewer = {case: group for case, group in GROUPS.items() if group != "p5"}
    assert settle_splits(tmp_path, None, fewer, 5) == make_splits(fewer, 5)


def test_splits_edited_into_a_leak_are_refused(tmp_path: Path) -> None:
    splits = make_splits(GROUPS, 5)
    leaking = [Split((*splits[0].train, splits[0].val[0]), splits[0].val[1:]), *splits[1:]]
    write_json(tmp_path / "splits_final.json", leaking)
    with pytest.raises(PlanError, match=r"fold 0 has p\d in both training and validation"):
        settle_splits(tmp_path, None, GROUPS, 5)


def test_splits_in_the_raw_folder_hold(raw: RawDataset) -> None:
    write_json(raw.folder / "splits_final.json", MINE)
    given = given_splits(raw.spec, GROUPS, raw.folders)
    assert given == MINE
    assert settle_splits(raw.preprocessed, given, GROUPS, 5) == MINE


def test_leaking_or_empty_splits_in_the_raw_folder_are_refused(raw: RawDataset) -> None:
    write_json(raw.folder / "splits_final.json", LEAKING)
    with pytest.raises(PlanError, match=r"splits_final.json: fold 0 has p0 in both"):
        given_splits(raw.spec, GROUPS, raw.folders)
    (raw.folder / "splits_final.json").write_text("[]")
    with pytest.raises(PlanError, match="no fold in it"):
        given_splits(raw.spec, GROUPS, raw.folders)


@pytest.mark.parametrize(("splits", "used"), [(MINE, True), (LEAKING, False)])
def test_splits_of_nnunet_hold_unless_they_leak(
    raw: RawDataset, splits: list[Split], used: bool, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = raw.root / "nnUNet_preprocessed"
    folders = Folders(raw.folders.raw, theirs / "autosam_net", raw.folders.results)
    assert given_splits(raw.spec, GROUPS, folders) is None
    write_json(theirs / raw.folder.name / "splits_final.json", splits)
    assert given_splits(raw.spec, GROUPS, folders) == (splits if used else None)
    assert bool(caplog.messages) != used


def test_nnunets_own_format_is_read(tmp_path: Path) -> None:
    content = [{"train": list(split.train), "val": list(split.val)} for split in make_splits(GROUPS, 5)]
    (tmp_path / "splits_final.json").write_text(json.dumps(content))
    assert settle_splits(tmp_path, None, GROUPS, 5) == make_splits(GROUPS, 5)
