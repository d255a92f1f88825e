import numpy as np
import pytest

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.data.splits import group_cases
from autosam_net.imageio import read_case, read_image, read_label
from dataset_conversion.example import LABELS, draw_case, draw_patient, main, write_example

SMALL = (3, 48, 48)


def arrays(folder):
    return {
        str(path.relative_to(folder)): read_image(path).array.tobytes() for path in sorted(folder.rglob("*.nii.gz"))
    }


def test_writes_a_data_set(tmp_path):
    dataset = read_dataset(write_example(tmp_path, patients=2, shape=SMALL, workers=1))
    cases = training_cases(dataset)
    names = [case.name for case in cases]
    assert names == ["patient001_frame01", "patient001_frame02", "patient002_frame01", "patient002_frame02"]
    assert set(group_cases(names, dataset.group_pattern).values()) == {"patient001", "patient002"}
    for case in cases:
        image, labels = read_case(case.images), read_label(case.label)
        assert image.shape == labels.shape == SMALL
        assert image.geometry == labels.geometry
        assert image.geometry.spacing == (8.0, 1.5, 1.5)
        assert set(np.unique(labels.array)) == {0, 1, 2, 3}
    tests = sorted(path.name for path in (dataset.folder / "labelsTs").iterdir())
    assert tests[0] == "patient003_frame01.nii.gz"
    assert len(tests) == len(list((dataset.folder / "imagesTs").iterdir())) == 4


def test_same_seed_same_data(tmp_path):
    first = arrays(write_example(tmp_path / "a", patients=2, frames=1, shape=SMALL, workers=1))
    assert first == arrays(write_example(tmp_path / "b", patients=2, frames=1, shape=SMALL, workers=2))
    other = arrays(write_example(tmp_path / "c", patients=2, frames=1, shape=SMALL, seed=1, workers=1))
    assert all(first[name] != other[name] for name in first)


@pytest.mark.parametrize("number", range(20))
def test_every_heart_is_one(number):
    patient = draw_patient(np.random.default_rng([0, number]))
    relaxed, contracted = (
        draw_case(patient, phase, (6, 96, 96), np.random.default_rng([0, number]))[1] for phase in (0.0, 1.0)
    )
    for labels in (relaxed, contracted):
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert not labels[:, [0, -1]].any() and not labels[:, :, [0, -1]].any()  # nothing touches the border
        areas = [(labels[index] == LABELS["LV"]).sum() for index in (0, -1)]
        assert areas[1] < areas[0]  # the apex is narrower than the base
    assert (contracted == LABELS["LV"]).sum() < 0.8 * (relaxed == LABELS["LV"]).sum()


def test_blood_is_brighter_than_muscle():
    patient = draw_patient(np.random.default_rng([0, 0]))
    image, labels = draw_case(patient, 0.0, (6, 96, 96), np.random.default_rng(0))
    assert image.dtype == np.int16
    assert image[labels == LABELS["LV"]].mean() > 1.3 * image[labels == LABELS["MYO"]].mean()


def test_command(tmp_path, capsys):
    arguments = ["--root", str(tmp_path), "-d", "901", "--patients", "1", "--frames", "1", "--workers", "1"]
    assert main(arguments) == 0
    assert "autosam_plan_and_preprocess -d 901" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "Dataset901_Example exists" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--patients", "0"])
    assert "expected a number of 1 or more" in capsys.readouterr().err
