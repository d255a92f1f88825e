"""Real scans through the commands: converted, checked, planned and preprocessed, without a hand."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.dataset import DatasetSpec, read_dataset, training_cases
from autosam_net.data.plan import Plan, load_plan
from autosam_net.data.splits import load_splits
from autosam_net.imageio import read_image, read_label
from autosam_net.paths import find_folders
from autosam_net.preprocessing.geometry import resize_labels, restore
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from planning.machine import Machine, Probe
from tests.planning.figures import probe
from tests.support import real_data

BRIGHT, DARK = "hippocampus_210", "hippocampus_320"  # intensities up to 1.7 million, and up to 121


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the seconds that measuring the speed takes."""

    def made_up(machine: Machine, *_: object) -> Probe:
        return probe(machine)

    monkeypatch.setattr("planning.probe.probe_speed", made_up)


def run(module: str, *words: str | Path) -> None:
    assert import_module(module).main([str(word) for word in words]) == 0


def planned(root: Path, name: str, *words: str) -> tuple[DatasetSpec, Plan]:
    dataset = read_dataset(root / "raw" / name)
    run("planning.command", "-d", name, "--device", "cpu", "--workers", "1", "--root", root, *words)
    return dataset, load_plan(root / "preprocessed" / name / "plan.json")


def test_heart(tmp_path: Path) -> None:
    source = real_data("ACDC", "training")
    for patient in ("patient001", "patient050"):
        shutil.copytree(source / patient, tmp_path / "download" / "training" / patient)
    run("dataset_conversion.acdc", "-i", tmp_path / "download", "--workers", "1", "--root", tmp_path)
    dataset, plan = planned(tmp_path, "Dataset027_ACDC")
    folder = tmp_path / "preprocessed" / dataset.name
    assert plan.encoding.encoder == "lite_medsam"
    assert plan.preprocessing.slice_axis == 0
    assert [source.offset for source in plan.encoding.rgb] == [0, 0, 0]  # neighbours are 10 mm away
    assert {case[:10] for split in load_splits(folder / "splits_final.json") for case in split.val} == {
        "patient001",
        "patient050",
    }
    for case in training_cases(dataset):
        assert case.label is not None
        stored, raw = load_case(folder / "cases" / case.name), read_label(case.label)
        assert stored.image.min() >= 0 and stored.image.max() <= 1
        assert stored.labels is not None
        back = restore(resize_labels(stored.labels, stored.properties.cropped_shape[1:]), stored.properties)
        assert back.shape == raw.shape
        assert stored.properties.geometry.spacing == read_image(case.images[0]).geometry.spacing
        for value in (1, 2, 3):
            one, other = back == value, raw.array[0] == value
            assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.97  # measured: 0.978 to 1


def test_hippocampus(tmp_path: Path) -> None:
    source = real_data("Task04_Hippocampus")
    task = tmp_path / source.name
    names = sorted(path.name.removesuffix(".nii.gz") for path in (source / "imagesTr").glob("h*.nii.gz"))
    names = [BRIGHT, DARK, *[name for name in names if name not in (BRIGHT, DARK)][:4]]
    for folder in ("imagesTr", "labelsTr"):
        (task / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(source / folder / f"{name}.nii.gz", task / folder)
    content = json.loads((source / "dataset.json").read_text())
    content["training"] = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
    ]
    (task / "dataset.json").write_text(json.dumps(content))
    run("dataset_conversion.msd", "-i", task, "--workers", "1", "--root", tmp_path)
    dataset, plan = planned(tmp_path, "Dataset004_Hippocampus")
    assert plan.preprocessing.normalizations[0].name == "percentile"
    assert [source.offset for source in plan.encoding.rgb] == [-1, 0, 1]
    cases = cases_folder(dataset, find_folders(tmp_path))
    for name in names:
        image = np.asarray(load_case(cases / name).image)
        assert image.dtype == np.float32
        assert image.min() == 0 and image.max() == 1
        assert image.std() > 0.1  # contrast is left at any scale of intensities


def test_fetal_ultrasound(tmp_path: Path) -> None:
    source = real_data("HC18", "training_set")
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(source.glob("00[0-4]_HC*.png")):
        shutil.copy(path, folder)
    words = ("-i", folder, "-m", folder, "-d", "18", "-n", "Fetal", "--labels", "head", "--workers", "1")
    run("dataset_conversion.image_folder", *words, "--root", tmp_path)
    dataset, plan = planned(tmp_path, "Dataset018_Fetal", "--plan-only")
    assert dataset.num_training == 5
    assert dataset.channel_names == ("grey",)
    assert plan.preprocessing.slice_axis == 0
    assert [source.offset for source in plan.encoding.rgb] == [0, 0, 0]  # one slice has no neighbours
    assert plan.folds == 5
