"""What users give as input, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosam_net.errors import DatasetError
from autosam_net.inference.inputs import find_inputs
from tests.dicom_files import noise, write_series


@pytest.fixture
def make(tmp_path: Path):
    def make_files(*names: str) -> Path:
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make_files


def names(cases) -> list[str]:
    return [case.name for case in cases]


def test_the_channel_number_is_optional_for_one_channel(make) -> None:
    folder = make("a_0000.nii.gz", "b.nii.gz", "scan_2020.nii.gz", "notes.txt", ".hidden.nii.gz")
    assert names(find_inputs([folder], 1)) == ["a", "b", "scan_2020"]


def test_files_lists_and_folders_are_taken(make) -> None:
    folder = make("a_0000.nii.gz", "b_0000.nii.gz")
    assert names(find_inputs([folder / "b_0000.nii.gz"], 1)) == ["b"]
    assert names(find_inputs([folder / "b_0000.nii.gz", folder / "a_0000.nii.gz"], 1)) == ["a", "b"]


def test_channels_of_a_case_belong_together(make) -> None:
    folder = make("a_0001.nii.gz", "a_0000.nii.gz", "b.nii.gz")
    cases = find_inputs([folder], 2)
    assert [file.name for file in cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert len(cases[1].images) == 1


def test_a_missing_channel_is_named(make) -> None:
    with pytest.raises(DatasetError, match=r"a: found channels 0000, 0002, expected 0000 to 0002\. Add the missing"):
        find_inputs([make("a_0000.nii.gz", "a_0002.nii.gz")], 3)


def test_a_number_that_is_no_channel_belongs_to_the_name(make) -> None:
    assert names(find_inputs([make("IMG_2023.png", "IMG_2024.png")], 3)) == ["IMG_2023", "IMG_2024"]


def test_nothing_to_predict_is_an_error(make, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image files or DICOM series found"):
        find_inputs([make("notes.txt")], 1)
    with pytest.raises(DatasetError, match="missing: no such file or folder"):
        find_inputs([tmp_path / "missing"], 1)


def test_two_files_of_one_case_are_refused(make) -> None:
    with pytest.raises(DatasetError, match=r"a: both a.nii.gz and a_0000.nii.gz are given"):
        find_inputs([make("a.nii.gz", "a_0000.nii.gz")], 1)


def test_endings_may_be_mixed(make) -> None:
    folder = make("a.nii.gz", "b.mha", "c_0000.nrrd", "d.PNG", "e.tif")
    assert names(find_inputs([folder], 1)) == ["a", "b", "c", "d", "e"]
    with pytest.raises(DatasetError, match=r"a: both a.mha and a.nii.gz are given"):
        find_inputs([make("a.mha")], 1)


def test_a_folder_of_slices_is_a_case(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("a.nii.gz")
    series = write_series(tmp_path / "b.c", noise())
    (tmp_path / "notes").mkdir()
    assert [(case.name, case.images) for case in find_inputs([folder], 1)] == [
        ("a", (tmp_path / "a.nii.gz",)),
        ("b.c", (series,)),
    ]
    assert names(find_inputs([series], 1)) == ["b.c"]
    monkeypatch.chdir(series)
    assert names(find_inputs([Path()], 1)) == ["b.c"]


def test_channels_may_be_series(tmp_path: Path) -> None:
    for channel in range(2):
        write_series(tmp_path / f"a_{channel:04d}", noise())
    (case,) = find_inputs([tmp_path], 2)
    assert case.name == "a" and [path.name for path in case.images] == ["a_0000", "a_0001"]


def test_images_beside_slices_are_refused(make, tmp_path: Path) -> None:
    write_series(tmp_path, noise())
    with pytest.raises(DatasetError, match=r"holds the slices of a series and a.nii.gz beside them. Move one of them"):
        find_inputs([make("a.nii.gz")], 1)
