import argparse
import json
from dataclasses import replace

import pytest

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.errors import DatasetError, UsageError
from dataset_conversion.raw_writer import Copy, RawDescription, copy_files, dataset_number, list_some, new_raw_dataset

DESCRIPTION = RawDescription(
    7, "Heart", ("MRI",), {"background": 0, "RV": 1}, ".nii.gz", "^(p\\d+)", {"license": "CC0", "reference": "us"}
)


def write(raw, description=DESCRIPTION, overwrite=False):
    with new_raw_dataset(description, raw, overwrite) as folder:
        for case in ("p1_a", "p1_b"):
            (folder / "imagesTr" / f"{case}_0000.nii.gz").write_text(case)
            (folder / "labelsTr" / f"{case}.nii.gz").write_text(case)
    return raw / description.folder_name


def test_reads_as_a_data_set(tmp_path):
    dataset = read_dataset(write(tmp_path))
    assert (dataset.name, dataset.identifier, dataset.num_training) == ("Dataset007_Heart", 7, 2)
    assert dataset.channel_names == ("MRI",)
    assert dataset.group_pattern == "^(p\\d+)"
    assert [case.name for case in training_cases(dataset)] == ["p1_a", "p1_b"]
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert {"channel_names", "labels", "numTraining", "file_ending", "license", "reference"} <= set(content)
    assert sorted(path.name for path in dataset.folder.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


def test_nothing_is_left_half_written(tmp_path):
    with pytest.raises(RuntimeError, match="power"), new_raw_dataset(DESCRIPTION, tmp_path) as folder:
        (folder / "imagesTr" / "a_0000.nii.gz").write_text("a")
        raise RuntimeError("power cut")
    assert not list(tmp_path.iterdir())


def test_existing_data_set_is_kept_unless_told(tmp_path):
    folder = write(tmp_path)
    (folder / "mine").write_text("precious")
    with pytest.raises(DatasetError, match=r"Dataset007_Heart exists\. Give --overwrite"):
        write(tmp_path)
    assert (folder / "mine").is_file()
    write(tmp_path, overwrite=True)
    assert not (folder / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset007_Heart"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_number_is_given_once(tmp_path, overwrite):
    write(tmp_path)
    with pytest.raises(DatasetError, match=r"number 7 is taken by .*Dataset007_Heart"):
        write(tmp_path, replace(DESCRIPTION, name="Liver"), overwrite)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"name": "my heart"}, UsageError, "name 'my heart': expected letters"),
        ({"labels": {"background": 0, "RV": 2}}, DatasetError, "Dataset007_Heart: label values must be consecutive"),
        ({"labels": {"background": 0}}, DatasetError, "no foreground class"),
    ],
)
def test_unsound_descriptions(tmp_path, change, error, text):
    with pytest.raises(error, match=text):
        write(tmp_path, replace(DESCRIPTION, **change))
    assert not list(tmp_path.iterdir())


def test_no_labelled_case(tmp_path):
    with pytest.raises(DatasetError, match="no labelled training case"), new_raw_dataset(DESCRIPTION, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_copy_that_fails_names_the_file(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: cannot be copied"):
        copy_files([Copy(tmp_path / "a.nii.gz", "b.nii.gz")], tmp_path)


@pytest.mark.parametrize("text", ["0", "1000", "x", "-1"])
def test_numbers_outside_the_range(text):
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 999"):
        dataset_number(text)


def test_list_some():
    assert list_some(["a", "b"]) == "a, b"
    assert list_some(list("abcdefg")) == "a, b, c, d, e and 2 more"
