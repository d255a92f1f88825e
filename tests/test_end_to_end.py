"""The three commands on the phantom, as a user types them: console scripts and the real default encoder."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autosam_net.imageio import read_image, read_label
from tests.support import snapshot

pytestmark = pytest.mark.e2e
NAME = "Dataset900_Example"
EDITS = {  # by hand, for speed: fewer pixels, fewer encoder passes, fewer iterations
    "preprocessing": {"spacing": 1.125},
    "encoding": {"input_size": 128, "maximum_views": 1},
}
TRAINING = {"iterations": 80, "batch_size": 4}
REACHED = 0.8  # mean Dice on the two test cases; measured: 0.96


class Session:
    """Runs console scripts with one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, script: str, *words: str | Path) -> str:
        """Run a script and return what it printed on stdout."""
        path = shutil.which(script, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert path is not None, f"{script} is not installed: pip install -e ."
        answer = subprocess.run([path, *map(str, words)], capture_output=True, text=True, check=False, cwd=self.root)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    @property
    def raw(self) -> Path:
        return self.root / "raw" / NAME

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / NAME

    @property
    def results(self) -> Path:
        return self.root / "results" / NAME / "cnn"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"


def edit_plan(path: Path) -> None:
    plan = json.loads(path.read_text())
    for part, changes in EDITS.items():
        plan[part] |= changes
    plan["configurations"]["cnn"] |= TRAINING
    path.write_text(json.dumps(plan))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """From nothing to evaluated predictions."""
    session = Session(tmp_path_factory.mktemp("line"))
    session("autosam_example", "--patients", "5", "--frames", "1", "--root", ".")
    session("autosam_plan_and_preprocess", "-d", "900", "--plan-only", "--device", "cpu", "--root", ".")
    edit_plan(session.preprocessed / "plan.json")
    session("autosam_plan_and_preprocess", "-d", "900", "--root", ".")
    session("autosam_train", "900", "cnn", "0-4", "--epochs", "1", "--device", "cpu", "--root", ".")
    session("autosam_predict", "-i", session.raw / "imagesTs", "-o", "predictions", "--device", "cpu", "--root", ".")
    session("autosam_evaluate", "-r", session.raw / "labelsTs", "-p", "predictions")
    return session


def read_summary(folder: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{folder}: {constant} in summary.json")

    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def test_every_step_leaves_what_it_promises(session: Session) -> None:
    for name in ("plan.json", "dataset_fingerprint.json", "splits_final.json", "cases/patient001_frame01/image.npy"):
        assert (session.preprocessed / name).is_file()
    held_out = set()
    for fold in range(5):
        folder = session.results / f"fold_{fold}"
        for name in ("model.safetensors", "run.json", "training_log.csv", "progress.png", "validation/cases.csv"):
            assert (folder / name).is_file()
        held_out |= {path.name for path in (folder / "validation").glob("*.nii.gz")}
    assert held_out == {path.name for path in (session.raw / "labelsTr").iterdir()}
    assert not list(session.root.rglob(".writing-*"))


def test_predictions_lie_on_the_grid_of_their_images(session: Session) -> None:
    images = sorted((session.raw / "imagesTs").iterdir())
    assert len(images) == 2
    for path in images:
        image, labels = read_image(path), read_label(session.predictions / path.name.replace("_0000", ""))
        assert labels.geometry == image.geometry
        assert labels.shape == image.shape


def test_the_ensemble_segments_patients_it_never_saw(session: Session) -> None:
    summary = read_summary(session.predictions)
    means = [summary["foreground_mean"], *summary["mean"].values()]
    assert all(value is not None and math.isfinite(value) for mean in means for value in mean.values())
    assert summary["foreground_mean"]["Dice"] > REACHED
    for fold in range(5):
        assert read_summary(session.results / f"fold_{fold}" / "validation")["number_of_cases"] == 1


def test_the_edited_plan_was_carried_out(session: Session) -> None:
    plan = json.loads((session.results / "plan.json").read_text())
    assert plan["encoding"]["encoder"] == "lite_medsam"
    assert plan["encoding"]["input_size"] == 128
    assert json.loads((session.results / "fold_0" / "run.json").read_text())["iterations"] == TRAINING["iterations"]


def test_planning_again_changes_no_file(session: Session) -> None:
    before = snapshot(session.preprocessed)
    session("autosam_plan_and_preprocess", "-d", "900", "--root", ".")
    assert snapshot(session.preprocessed) == before


def test_continuing_a_finished_training_does_nothing(session: Session) -> None:
    def trained() -> dict[str, Any]:
        return {name: entry for name, entry in snapshot(session.results).items() if name.startswith("fold_")}

    before = trained()
    words = ("900", "cnn", "0", "--epochs", "1", "--continue", "--device", "cpu", "--root", ".")
    assert "validated already" in session("autosam_train", *words)
    assert trained() == before
