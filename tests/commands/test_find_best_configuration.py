"""From trained heads to the best of them, and to predictions that follow it, through the commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.commands.find_best_configuration import main
from autosam_net.commands.predict import main as predict
from autosam_net.data.dataset import training_cases
from autosam_net.evaluation import selection
from autosam_net.evaluation.postprocessing import keep_largest
from autosam_net.imageio import read_label
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared, only_line


@pytest.fixture(scope="module")
def root(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with the phantom's data, and fold 0 of cnn and of linear."""
    root = tmp_path_factory.mktemp("root")
    for name in ("raw", "preprocessed"):
        (root / name).symlink_to(prepared.root / name)
    folders = replace(prepared.folders, results=root / "results")
    for configuration in ("cnn", "linear"):
        train_head(prepared.dataset, prepared.plan, configuration, 0, TrainingOptions(), folders)
    return root


@pytest.fixture
def chosen(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command prints where any pair and any post-processing gains enough."""
    monkeypatch.setattr(selection, "PAIR_MARGIN", -2.0)
    monkeypatch.setattr(selection, "COMPONENT_MARGIN", -2.0)
    assert main(["900", "--root", str(root), "--device", "cpu"]) == 0
    return capsys.readouterr().out


def image(prepared: Prepared) -> str:
    return str(training_cases(prepared.dataset)[0].images[0])


def test_the_choice_is_printed_and_kept(root: Path, chosen: str) -> None:
    assert "linear + cnn, fold 0, only the largest component of" in chosen
    assert f"autosam_predict -d 900 -i INPUT -o OUTPUT --root {root}" in chosen
    folder = root / "results" / "Dataset900_Example"
    assert (folder / "best.json").is_file()
    assert (folder / "inference_instructions.txt").read_text() in chosen


def test_prediction_follows_the_choice_and_says_so(
    prepared: Prepared, root: Path, chosen: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def labels(name: str, *flags: str) -> tuple[np.ndarray, str]:
        arguments = ["-i", image(prepared), "-o", str(tmp_path / name), "--root", str(root), "--device", "cpu", *flags]
        caplog.clear()
        assert predict(arguments) == 0
        return read_label(next((tmp_path / name).glob("*.nii.gz"))).array[0], caplog.text

    best, said = labels("best")
    assert said.count("best.json: linear + cnn, fold 0, only the largest component of") == 1
    plain, said = labels("plain", "--disable_postprocessing")
    assert "best.json" in said
    named, said = labels("named", "-c", "linear", "cnn")
    assert "best.json" not in said
    np.testing.assert_array_equal(plain, named)
    np.testing.assert_array_equal(best, keep_largest(plain, [[1], [2], [3]]))
    folder = root / "results" / "Dataset900_Example" / "cnn"
    caplog.clear()
    assert predict(["-i", image(prepared), "-o", str(tmp_path / "m"), "-m", str(folder), "--device", "cpu"]) == 0
    assert "best.json" not in caplog.text


def test_prediction_refuses_a_choice_that_is_out_of_date(
    prepared: Prepared, root: Path, chosen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = root / "results" / "Dataset900_Example" / "cnn" / "fold_0" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before + b" ")
    try:
        assert predict(["-i", image(prepared), "-o", str(tmp_path / "out"), "--root", str(root)]) == 2
    finally:
        weights.write_bytes(before)
    assert "best.json: out of date, cnn/fold_0 was trained again since. Run autosam_find_best" in only_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["900", "-c", "cnm"], "no trained model 'cnm'; did you mean 'cnn'?"),
        (["900", "-c", "vit"], "no trained model 'vit'"),
        (["900", "-f", "3"], "fold 3 is not trained; trained folds: 0"),
        (["12"], "no data set 12"),
    ],
)
def test_mistakes_end_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main([*arguments, "--root", str(root), "--device", "cpu"]) == 2
    assert expected in only_line(capsys)


def test_no_trained_model(prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("raw", "preprocessed"):
        (tmp_path / name).symlink_to(prepared.root / name)
    assert main(["900", "--root", str(tmp_path), "--device", "cpu"]) == 2
    assert "Run autosam_train first" in only_line(capsys)
