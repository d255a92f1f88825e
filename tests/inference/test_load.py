"""A model is found by number, name, folder or zip, and what contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.errors import ModelError, UsageError
from autosam_net.inference.load import load_model
from autosam_net.inference.package import export_model
from autosam_net.paths import Folders
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared


@pytest.fixture(scope="module")
def folders(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("results"))
    train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(), folders)
    return folders


def test_every_name_of_a_model(folders: Folders, tmp_path: Path, tiny_weights: Path) -> None:
    folder = folders.results / "Dataset900_Example" / "linear"
    for source in (900, "900", "Dataset900_Example", folder, str(folder)):
        assert len(load_model(source, device="cpu", folders=folders).heads) == 1
    export_model(900, tmp_path / "model.zip", folders=folders)
    for source in (tmp_path / "model.zip", str(tmp_path / "model.zip")):
        assert len(load_model(source, device="cpu", weights=str(tiny_weights)).heads) == 1


def test_contradictions(folders: Folders, tmp_path: Path) -> None:
    folder = folders.results / "Dataset900_Example" / "linear"
    with pytest.raises(UsageError, match=r"linear: names the model already\. Leave the configurations out"):
        load_model(folder, ["linear"])
    with pytest.raises(UsageError, match=r"weights w\.pth: goes with a zip; else plan\.json names the weights"):
        load_model(900, weights="w.pth", folders=folders)
    with pytest.raises(UsageError, match=r"weights w\.pth: goes with a zip; .*plan\.json names the weights"):
        load_model(folder, weights="w.pth")
    with pytest.raises(ModelError, match=r"no trained folds here\. Give a zip, or a folder like"):
        load_model(tmp_path)
    with pytest.raises(UsageError, match="device cudda: cannot be used"):
        load_model(900, device="cudda", folders=folders)
