from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosam_net.data.dataset import find_dataset, group_by_case, list_datasets, read_dataset, texts_in, training_cases
from autosam_net.errors import DatasetError
from autosam_net.paths import Folders

CONTENT: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a raw data set of two channels: case `a` whole, `b` without a label, `c` without images."""
    folder = tmp_path / "raw" / "Dataset012_Brain"
    write(folder, CONTENT)
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "imagesTr/b_0000", "labelsTr/a", "labelsTr/c"):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (folder / "imagesTr" / "._a_0000.nii.gz").touch()  # macOS leaves such files on foreign disks
    return folder


def write(folder: Path, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def folders(raw: Path) -> Folders:
    return Folders(raw, raw, raw)


def test_reading(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert (dataset.name, dataset.identifier, dataset.channel_names) == ("Dataset012_Brain", 12, ("T1", "T2"))
    assert dataset.labels.targets == {"whole": (1, 2), "core": (2,)}


def test_keys_of_others_are_left_alone(folder: Path) -> None:
    write(folder, {**CONTENT, "licence": "CC", "overwrite_image_reader_writer": "SimpleITKIO"})
    assert read_dataset(folder).num_training == 2


def test_a_case_is_what_has_an_image_or_a_label(folder: Path) -> None:
    cases = {case.name: case for case in training_cases(read_dataset(folder))}
    assert list(cases) == ["a", "b", "c"]
    assert [path.name for path in cases["a"].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert (cases["b"].label, cases["c"].images) == (None, ())


def test_a_file_without_channel_number_is_a_case(tmp_path: Path) -> None:
    for name in ("scan.png", "scan_12.png", "other_0000.png", "notes.txt"):
        (tmp_path / name).touch()
    assert sorted(group_by_case(tmp_path, ".png")) == ["other", "scan", "scan_12"]
    assert group_by_case(tmp_path / "absent", ".png") == {}


def test_listed_cases_may_lie_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", "/data")
    listed = {"x": {"images": ["$ELSEWHERE/x.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    write(folder, {**CONTENT, "dataset": listed})
    (case,) = training_cases(read_dataset(folder))
    assert (case.name, case.images, case.label) == (
        "x",
        (Path("/data/x.nii.gz"),),
        folder / "labelsTr" / "a.nii.gz",
    )
    write(folder, {**CONTENT, "dataset": {"x": {"images": []}}})
    with pytest.raises(DatasetError, match="dataset: x: expected the keys images and label"):
        training_cases(read_dataset(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "labels: expected an object, found null"),
        ({"labels": {"background": 0, "a": "1"}}, "labels: a: expected a whole number"),
        ({"labels": {"background": 0, "a": 2}}, "consecutive"),
        ({"channel_names": {}}, "must have the keys 0, 1, ..., found none"),
        ({"channel_names": {"1": "CT"}}, "must have the keys 0, 1, ..., found 1"),
        ({"channel_names": {"0": 7}}, "channel_names: 0: expected a text, found 7"),
        ({"numTraining": "2"}, "numTraining: expected a whole number"),
        ({"file_ending": 1}, "file_ending: expected a text"),
        ({"group_pattern": 1}, "group_pattern: expected a text"),
    ],
)
def test_a_wrong_value_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    write(folder, {**CONTENT, **change})
    with pytest.raises(DatasetError, match=f"dataset.json: .*{message}"):
        read_dataset(folder)


def test_missing_keys_are_listed_together(folder: Path) -> None:
    write(folder, {"labels": CONTENT["labels"], "numTraining": 2})
    with pytest.raises(DatasetError, match=r"dataset.json: keys channel_names, file_ending missing. Add them"):
        read_dataset(folder)
    write(folder, [])
    with pytest.raises(DatasetError, match="expected an object with channel_names"):
        read_dataset(folder)


def test_no_description(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json: no such file"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("identifier", [12, "12", "012", "Dataset012_Brain"])
def test_finding_by_number_or_name(folder: Path, identifier: int | str) -> None:
    assert find_dataset(identifier, folders(folder.parent)).folder == folder


def test_a_data_set_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no data set 99; known: Dataset012_Brain. Convert your data first"):
        find_dataset(99, folders(folder.parent))
    with pytest.raises(DatasetError, match="no data set Dataset012_Brian; did you mean 'Dataset012_Brain'"):
        find_dataset("Dataset012_Brian", folders(folder.parent))
    with pytest.raises(DatasetError, match="no data set 1; known: none"):
        find_dataset(1, folders(tmp_path / "absent"))


def test_a_number_that_two_have(folder: Path) -> None:
    (folder.parent / "Dataset012_Brain2").mkdir()
    with pytest.raises(DatasetError, match=r"could be Dataset012_Brain or Dataset012_Brain2\. Give the whole name"):
        find_dataset(12, folders(folder.parent))


def test_listing_knows_only_data_sets(folder: Path) -> None:
    (folder.parent / "Dataset7_Short").mkdir()
    (folder.parent / "Dataset013_File").touch()
    assert list_datasets(folder.parent) == ["Dataset012_Brain"]


def test_what_it_says_in_words_is_told_on_one_line() -> None:
    words = {"reference": "A paper,\n  of 2018 ", "release": 1.0, "name": " ", "license": {"patient1": "/home/me"}}
    assert texts_in(CONTENT | words) == {"reference": "A paper, of 2018", "release": "1.0"}
