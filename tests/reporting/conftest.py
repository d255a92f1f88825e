from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.inference.validate import train_and_validate
from autosam_net.jsonio import write_json
from autosam_net.paths import find_folders
from autosam_net.training.run import TrainingOptions
from planning.extract_fingerprint import extract_fingerprint
from tests.support import Prepared, copied

REASON = "because <script>alert(1)</script> & so"


@pytest.fixture(scope="session")
def planned(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return the phantom measured and planned, with a reason that is no HTML."""
    place = copied(prepared, tmp_path_factory.mktemp("planned"))
    folder = place.folders.preprocessed / place.dataset.name
    write_json(folder / "dataset_fingerprint.json", extract_fingerprint(place.dataset, place.folders, workers=1))
    plan = replace(prepared.plan, reasons={"encoder": REASON, "head linear": "the only one"})
    write_json(folder / "plan.json", plan)
    return replace(place, plan=plan)


@pytest.fixture(scope="session")
def trained(planned: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return the same with one head trained and validated on two folds."""
    root = tmp_path_factory.mktemp("trained")
    for name in ("raw", "preprocessed"):
        shutil.copytree(planned.root / name, root / name)
    folders = find_folders(root)
    dataset = replace(planned.dataset, folder=folders.raw / planned.dataset.name)
    for fold in ("0", "1"):
        train_and_validate(dataset, planned.plan, "linear", fold, TrainingOptions(epochs=3), folders)
    return Prepared(dataset, planned.plan, folders, root)


@pytest.fixture
def report(trained: Prepared) -> Path:
    """Return where the report goes by default."""
    return trained.folders.results / trained.dataset.name / "report.html"
