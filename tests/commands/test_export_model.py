"""The export command: what it writes, says and refuses, and predictions from what it wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.commands import install_model, predict
from autosam_net.commands.export_model import main
from autosam_net.data.dataset import training_cases
from autosam_net.files import sha256_of_files
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared, only_line


@pytest.fixture(scope="module")
def root(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root whose results hold one fold of cnn."""
    root = tmp_path_factory.mktemp("root")
    folders = replace(prepared.folders, results=root / "results")
    train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(epochs=1), folders)
    return root


def test_home_zip_and_installed_predict_the_same_bytes(
    prepared: Prepared, root: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zip_file, weights = tmp_path / "m.zip", ["--weights", str(tiny_weights)]
    assert main(["900", "-o", str(zip_file), "--root", str(root)]) == 0
    assert f"sha256 {sha256_of_files([zip_file])}" in capsys.readouterr().out
    assert install_model.main([str(zip_file), *weights, "--root", str(tmp_path)]) == 0
    image = ["-i", str(training_cases(prepared.dataset)[0].images[0])]
    ways = {"home": ["--root", str(root)], "zip": ["-m", str(zip_file), *weights], "there": ["--root", str(tmp_path)]}
    for name, words in ways.items():
        assert predict.main([*image, "-o", str(tmp_path / name), *words]) == 0
    written = [next((tmp_path / name).glob("*.nii.gz")).read_bytes() for name in ways]
    assert written[0] == written[1] == written[2]


def test_the_graph(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["900", "--onnx", str(tmp_path / "m.onnx"), "--root", str(root)]) == 0
    assert "images (N, 3, 64, 64) -> logits (N, 4, 64, 64)" in capsys.readouterr().out
    assert (tmp_path / "m.onnx").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "nothing to write: give -o model.zip, --onnx model.onnx, or both"),
        (["-o", "there.zip"], "there.zip: exists already. Choose another name, or give --overwrite."),
        (["-o", "new.zip", "-c", "cnm"], "no trained model 'cnm'; did you mean 'cnn'?"),
        (["-o", "new.zip", "-f", "3"], "fold 3 is not trained; trained folds: 0"),
    ],
)
def test_what_is_refused(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.zip").write_bytes(b"mine")
    assert main(["900", *words, "--root", str(root)]) == 2
    assert expected in only_line(capsys)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"mine"]


def test_weights_go_with_a_zip(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-i", str(tmp_path), "-o", str(tmp_path / "out"), "--weights", "mine.pth"]
    assert predict.main([*words, "--root", str(root)]) == 2
    assert "--weights mine.pth: goes with -m model.zip; else plan.json names the weights." in only_line(capsys)
    assert predict.main([*words, "-m", str(root / "results" / "Dataset900_Example" / "cnn")]) == 2
    assert "goes with a zip; " in only_line(capsys)
