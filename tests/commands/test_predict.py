"""The prediction command: which model is meant, and what it writes."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.commands.predict import main
from autosam_net.data.dataset import training_cases
from autosam_net.data.encoding import POSES
from autosam_net.jsonio import read_sealed, write_json
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.dicom_files import noise, write_series
from tests.support import Prepared


@pytest.fixture(scope="module")
def root(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root whose results hold one fold of cnn and of linear."""
    root = tmp_path_factory.mktemp("root")
    folders = replace(prepared.folders, results=root / "results")
    for configuration in ("cnn", "linear"):
        train_head(prepared.dataset, prepared.plan, configuration, 0, TrainingOptions(), folders)
    return root


def image(prepared: Prepared) -> str:
    return str(training_cases(prepared.dataset)[0].images[0])


def test_several_models_are_listed_and_refused(prepared: Prepared, root: Path, tmp_path: Path, capsys) -> None:
    assert main(["-i", image(prepared), "-o", str(tmp_path / "out"), "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert "Dataset900_Example/cnn, Dataset900_Example/linear" in error and "-c" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("chosen", [["-c", "cnn"], ["-d", "900", "-c", "cnn", "linear"]])
def test_the_chosen_models_predict(prepared: Prepared, root: Path, tmp_path: Path, capsys, chosen: list[str]) -> None:
    assert main(["-i", image(prepared), "-o", str(tmp_path), "--root", str(root), *chosen]) == 0
    said = capsys.readouterr().out
    assert "1 label maps" in said and "no expected Dice: fewer than 5 patients were held out" in said
    assert len(list(tmp_path.glob("*.nii.gz"))) == 1


def test_the_only_model_needs_no_name_and_a_folder_is_enough(prepared: Prepared, root: Path, tmp_path: Path) -> None:
    shutil.copytree(
        root / "results" / "Dataset900_Example" / "cnn", tmp_path / "results" / "Dataset900_Example" / "cnn"
    )
    assert main(["-i", image(prepared), "-o", str(tmp_path / "a"), "--root", str(tmp_path)]) == 0
    model = tmp_path / "results" / "Dataset900_Example" / "cnn"
    assert main(["-i", image(prepared), "-o", str(tmp_path / "b"), "-m", str(model)]) == 0
    (first,), (second,) = (list((tmp_path / name).glob("*.nii.gz")) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_without_test_time_augmentation(prepared: Prepared, root: Path, tmp_path: Path) -> None:
    model = tmp_path / "cnn"
    shutil.copytree(root / "results" / "Dataset900_Example" / "cnn", model)

    def run(name: str, *flags: str) -> None:
        assert main(["-i", image(prepared), "-o", str(tmp_path / name), "-m", str(model), *flags]) == 0

    run("plain")
    write_json(model / "plan.json", replace(prepared.plan, encoding=replace(prepared.plan.encoding, poses=POSES)))
    run("averaged")
    run("disabled", "--disable_tta")
    plain, averaged, disabled = (
        next((tmp_path / name).glob("*.nii.gz")).read_bytes() for name in ("plain", "averaged", "disabled")
    )
    assert disabled == plain != averaged


def test_no_model_at_all(prepared: Prepared, tmp_path: Path, capsys) -> None:
    assert main(["-i", image(prepared), "-o", str(tmp_path / "out"), "--root", str(tmp_path)]) == 2
    assert "no trained model. Run autosam_train first" in capsys.readouterr().err


def test_a_folder_and_a_name_together_are_refused(prepared: Prepared, root: Path, tmp_path: Path, capsys) -> None:
    model = root / "results" / "Dataset900_Example" / "cnn"
    assert main(["-i", image(prepared), "-o", str(tmp_path / "out"), "-m", str(model), "-d", "900"]) == 2
    assert "names the model already. Leave -d and -c out." in capsys.readouterr().err


def test_an_empty_input_folder(root: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--root", str(root), "-c", "cnn"]
    assert main(arguments) == 2
    assert "no image files or DICOM series found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_cases_are_named_and_uncertainty_is_saved(
    prepared: Prepared, root: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosam_net.inference.model.expect", lambda members: (dict.fromkeys(members[0][1], 0.1), True))
    arguments = ["-i", image(prepared), "-o", str(tmp_path), "--root", str(root), "-c", "cnn", "linear"]
    assert main([*arguments, "--save_uncertainty"]) == 0
    said = capsys.readouterr().out
    assert f"1 of 1 cases are flagged as bad in {tmp_path / 'cases.csv'}, with an expected Dice below what" in said
    assert re.search(r"the worst quarter in validation reached: patient\w+ \(0\.100\)\n", said)
    assert len(list((tmp_path / "uncertainty").glob("*.nii.gz"))) == 2
    record = read_sealed(tmp_path / "run.json")
    assert {name.split()[0] for name in record["heads"]} == {"cnn", "linear"}
    assert {"command", "seconds", "machine", "peak_memory_mib", "versions", "encoder_sha256", "poses"} <= set(record)


def test_a_dicom_series_gives_a_dicom_seg(root: Path, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", noise((3, 40, 36)))
    words = ["-i", str(series), "-o", str(tmp_path / "out"), "--root", str(root), "-c", "cnn", "--save_dicom_seg"]
    assert main(words) == 0
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {
        *("ct.nii.gz", "ct.dcm"),
        *("plan.json", "run.json", "cases.csv"),
    }
