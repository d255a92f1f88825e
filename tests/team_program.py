"""What each process of a team runs in test_scaling: train heads, without dropout and in float32."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from autosam_net.data.dataset import DatasetSpec, find_dataset
from autosam_net.data.plan import load_plan
from autosam_net.embedding import source as source_module
from autosam_net.encoders.catalog import EncoderEntry, WeightsSource, register_encoder
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.training import unlabelled
from autosam_net.training.run import TrainingOptions
from autosam_net.training.team import join_team, this_team
from autosam_net.training.train import train_head
from autosam_net.training.unlabelled import Lessons
from tests.support import TINY, build_tiny


def train_without_dropout(dataset: DatasetSpec, folders: Folders, results: Path, device: str) -> tuple[Path, Path]:
    """Return the folders of a fold of the head `cnn`: trained on labelled cases, then on pseudo-labels too."""
    plan = load_plan(folders.preprocessed / dataset.name / "plan.json")
    cnn = plan.configuration("cnn")
    cnn = replace(cnn, settings={**cnn.settings, "dropout": 0.0})
    plan = replace(plan, configurations={"cnn": cnn})
    folders, options = replace(folders, results=results), TrainingOptions(device=device)
    folder = train_head(dataset, plan, "cnn", 0, options, folders)
    with this_team().leader_first():
        lessons = write_labels(dataset, folders, folder)
    with patch.object(unlabelled, "CHANNEL_DROPOUT", 0.0):
        return folder, train_head(dataset, plan, "cnn", 0, replace(options, unlabelled=True), folders, lessons)


def write_labels(dataset: DatasetSpec, folders: Folders, taught: Path) -> Lessons:
    """Write labels of two cases where pseudo-labels would lie."""
    names = tuple(sorted(file.name for file in cases_folder(dataset, folders).iterdir())[:2])
    lessons = Lessons(taught / "model.safetensors", names, taught / "lessons")
    lessons.folder.mkdir(exist_ok=True)
    for case in names:
        if not lessons.holds(case):
            labels = load_case(cases_folder(dataset, folders) / case).labels
            assert labels is not None
            lessons.write(case, labels)
    return lessons


if __name__ == "__main__":
    root, results, weights = map(Path, sys.argv[1:])
    source = WeightsSource(file="tiny.pth", sha256=None, size=weights.stat().st_size)
    register_encoder(EncoderEntry(TINY, "tiny", build_tiny, 64, 16, 4, source, 0.01, 0.01, "for tests", channels=32))
    source_module.supports_bfloat16 = lambda device: False
    folders = find_folders(root)
    with join_team("cpu") as device:
        train_without_dropout(find_dataset(900, folders), folders, results, device)
