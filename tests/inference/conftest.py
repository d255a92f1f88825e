from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.paths import Folders
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared


@pytest.fixture(scope="session")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return folders whose results hold folds 0 and 1 of cnn and of linear, and fold 0 of another run."""
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("trained"))
    runs = [(name, fold, TrainingOptions()) for name in ("cnn", "linear") for fold in (0, 1)]
    for name, fold, options in [*runs, ("cnn", 0, TrainingOptions(labelled=1))]:
        train_head(prepared.dataset, prepared.plan, name, fold, options, folders)
    return folders


@pytest.fixture
def changeable(trained: Folders, tmp_path: Path) -> Folders:
    """Return folders with a copy of the results that a test may change."""
    shutil.copytree(trained.results, tmp_path / "results")
    return replace(trained, results=tmp_path / "results")
