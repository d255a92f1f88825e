from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autosam_net.commands import demo

DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "heart": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
Calls = list[tuple[str, ...]]


def write_dataset(folder: Path, tests: bool) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
    for name in ("imagesTs", "labelsTs") if tests else ():
        (folder / name).mkdir()
        (folder / name / "a.nii.gz").touch()
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace the console scripts: note what is called, and leave behind what the demo reads."""
    noted: Calls = []

    def command(name: str, *words: str | Path) -> None:
        noted.append((name, *map(str, words)))
        root = Path(words[-1])
        if name in ("autosam_example", "autosam_convert_msd"):
            write_dataset(root / "raw" / "Dataset900_Example", tests=name == "autosam_example")
        if name == "autosam_plan_and_preprocess":
            for dataset in (root / "raw").iterdir():
                (root / "preprocessed" / dataset.name).mkdir(parents=True, exist_ok=True)
                (root / "preprocessed" / dataset.name / "splits_final.json").write_text("[1, 2, 3, 4, 5]")
        if name == "autosam_train":
            validation = root / "results" / "Dataset900_Example" / "cnn" / "fold_0" / "validation"
            validation.mkdir(parents=True, exist_ok=True)
            (validation / "summary.json").write_text('{"foreground_mean": {"Dice": 0.875}}')

    monkeypatch.setattr(demo, "_command", command)
    return noted


def test_phantom(tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--root", str(tmp_path)]) == 0
    assert [call[0].removeprefix("autosam_") for call in calls] == [
        "example",
        "plan_and_preprocess",
        "train",
        "predict",
        "evaluate",
    ]
    assert calls[2][1:4] == ("900", "cnn", "0-4")
    shown = capsys.readouterr().out
    assert "validation Dice 0.875" in shown
    assert str(tmp_path / "Example" / "results" / "Dataset900_Example") in shown
    calls.clear()
    assert demo.main(["--root", str(tmp_path)]) == 0
    assert calls[0][0] == "autosam_plan_and_preprocess"  # the data are there


def test_an_existing_data_set_is_linked(tmp_path: Path, calls: Calls) -> None:
    data = write_dataset(tmp_path / "elsewhere" / "Dataset900_Example", tests=True)
    assert demo.main(["--root", str(tmp_path / "demo"), "--data", str(data), "--configuration", "linear"]) == 0
    link = tmp_path / "demo" / "Dataset900_Example" / "raw" / "Dataset900_Example"
    assert link.resolve() == data
    assert calls[1][:4] == ("autosam_train", "900", "linear", "0-4")


def test_a_decathlon_task_is_converted(tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "Task04_Hippocampus", tests=False)
    assert demo.main(["--root", str(tmp_path / "demo"), "--data", str(data)]) == 0
    assert calls[0] == ("autosam_convert_msd", "-i", str(data), "--root", str(tmp_path / "demo" / data.name))
    assert "autosam_predict" not in {call[0] for call in calls}
    assert "no labelled test images" in capsys.readouterr().out


def test_a_folder_of_something_else(tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--root", str(tmp_path / "demo"), "--data", str(tmp_path)]) == 2
    assert "no dataset.json there. Give a Decathlon task folder" in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(("script", "message"), [("#!/bin/sh\nexit 3", "exit code 3"), (None, "is not installed")])
def test_a_failing_step_ends_the_demo(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    message: str,
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    if script:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "autosam_example").write_text(script)
        (tmp_path / "bin" / "autosam_example").chmod(0o755)
    assert demo.main(["--root", str(tmp_path / "demo")]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("\n$ autosam_example --root ")
    assert message in captured.err


def test_it_runs_as_the_module_that_make_starts() -> None:
    words = [sys.executable, "-m", "autosam_net.commands.demo", "--help"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert "--data" in answer.stdout
