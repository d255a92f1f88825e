import json

import numpy as np
import pytest

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.imageio import read_case
from dataset_conversion.msd import main
from tests.support import real_data


def write_task(folder, save_volume, modalities=("MRI",), cases=("heart_1", "heart_2"), tests=("heart_9",)):
    shape = (3, 8, 8) if len(modalities) == 1 else (len(modalities), 3, 8, 8)
    for case in cases:
        save_volume(folder / "imagesTr" / f"{case}.nii.gz", shape, value=5)
        save_volume(folder / "labelsTr" / f"{case}.nii.gz")
        (folder / "imagesTr" / f"._{case}.nii.gz").write_bytes(b"left by macOS")
    for case in tests:
        save_volume(folder / "imagesTs" / f"{case}.nii.gz", shape)
        (folder / "imagesTs" / f"._{case}.nii.gz").write_bytes(b"left by macOS")
    content = {
        "name": "HEART",
        "description": "a heart",
        "licence": "CC-BY-SA 4.0",
        "modality": {str(index): name for index, name in enumerate(modalities)},
        "labels": {"0": "Background", "1": "left atrium", "2": "right atrium"},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases],
        "test": [f"./imagesTs/{case}.nii.gz" for case in tests],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def convert(tmp_path, source, *more):
    return main(["-i", str(source), "--root", str(tmp_path), "--workers", "1", *more])


def refused(tmp_path, source, capsys, *more) -> str:
    assert convert(tmp_path, source, *more) == 2
    assert not list((tmp_path / "raw").glob("*"))
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    return text


def change(task, **keys):
    content = {**json.loads((task / "dataset.json").read_text()), **keys}
    (task / "dataset.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_converts(tmp_path, save_volume, capsys):
    task = write_task(tmp_path / "Task02_Heart", save_volume)
    assert convert(tmp_path, task) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset002_Heart")
    assert dict(dataset.labels.values) == {"background": 0, "left atrium": 1, "right atrium": 2}
    cases = training_cases(dataset)
    assert [case.name for case in cases] == ["heart_1", "heart_2"]
    assert cases[0].images[0].read_bytes() == (task / "imagesTr" / "heart_1.nii.gz").read_bytes()
    assert [path.name for path in (dataset.folder / "imagesTs").iterdir()] == ["heart_9_0000.nii.gz"]
    assert json.loads((dataset.folder / "dataset.json").read_text())["license"] == "CC-BY-SA 4.0"
    assert "autosam_plan_and_preprocess -d 2 " in capsys.readouterr().out


def test_channels_are_split(tmp_path, save_volume):
    task = write_task(tmp_path / "Task05_Prostate", save_volume, modalities=("T2", "ADC"))
    assert convert(tmp_path, task) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset005_Prostate")
    assert dataset.channel_names == ("T2", "ADC")
    case = read_case(training_cases(dataset)[0].images)
    assert case.array.shape == (2, 3, 8, 8)
    assert np.unique(case.array[1] - case.array[0]).tolist() == [1]
    assert len(list((dataset.folder / "imagesTs").iterdir())) == 2


def test_number_by_hand(tmp_path, save_volume, capsys):
    task = write_task(tmp_path / "mine", save_volume)
    assert "mine: expected a folder named TaskNN_Name. Give the number with -d" in refused(tmp_path, task, capsys)
    assert convert(tmp_path, task, "-d", "77") == 0
    assert (tmp_path / "raw" / "Dataset077_HEART").is_dir()


def test_missing_files(tmp_path, save_volume, capsys):
    task = write_task(tmp_path / "Task02_Heart", save_volume)
    (task / "labelsTr" / "heart_2.nii.gz").unlink()
    assert "lists files that are missing: heart_2.nii.gz" in refused(tmp_path, task, capsys)


def test_no_task(tmp_path, capsys):
    assert "dataset.json: no such file" in refused(tmp_path, tmp_path, capsys)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"modality": None}, "modality: expected an object"),
        ({"labels": {"0": "background", "x": "heart"}}, "labels: expected value -> name with whole numbers"),
        ({"labels": {"0": "background", "1": "heart", "2": "heart"}}, "a name stands for two values"),
        ({"labels": {"0": "background", "2": "heart"}}, "label values must be consecutive"),
        ({"training": None}, "training: expected a list"),
        ({"training": [{"image": "a.nii.gz"}]}, "an entry has no key 'label'"),
    ],
)
def test_wrong_dataset_json(tmp_path, save_volume, capsys, keys, text):
    task = write_task(tmp_path / "Task02_Heart", save_volume)
    change(task, **keys)
    assert text in refused(tmp_path, task, capsys)


def test_wrong_number_of_channels(tmp_path, save_volume, capsys):
    task = write_task(tmp_path / "Task05_Prostate", save_volume, modalities=("T2", "ADC"))
    save_volume(task / "imagesTr" / "heart_2.nii.gz", (3, 3, 8, 8))
    assert "has size 8 x 8 x 3 x 3, expected a fourth axis of 2 channels (T2, ADC)" in refused(tmp_path, task, capsys)


def test_real_task(tmp_path):
    assert main(["-i", str(real_data("Task04_Hippocampus")), "--root", str(tmp_path)]) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset004_Hippocampus")
    assert dataset.num_training == len(training_cases(dataset)) == 130
    assert tuple(dataset.labels.targets) == ("Anterior", "Posterior")
