"""What each process of a team runs in test_scaling: train a head, without dropout and in float32."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from autosam_net.data.dataset import DatasetSpec, find_dataset
from autosam_net.data.plan import load_plan
from autosam_net.embedding import embed
from autosam_net.encoders.catalog import EncoderEntry, WeightsSource, register_encoder
from autosam_net.paths import Folders, find_folders
from autosam_net.training.run import TrainingOptions
from autosam_net.training.team import join_team
from autosam_net.training.train import train_head
from tests.support import TINY, build_tiny


def train_without_dropout(dataset: DatasetSpec, folders: Folders, results: Path, device: str) -> Path:
    """Return the folder of a fold of the head `cnn`."""
    plan = load_plan(folders.preprocessed / dataset.name / "plan.json")
    cnn = plan.configuration("cnn")
    cnn = replace(cnn, settings={**cnn.settings, "dropout": 0.0})
    folders, options = replace(folders, results=results), TrainingOptions(device=device)
    return train_head(dataset, replace(plan, configurations={"cnn": cnn}), "cnn", 0, options, folders)


if __name__ == "__main__":
    root, results, weights = map(Path, sys.argv[1:])
    source = WeightsSource(file="tiny.pth", sha256=None, size=weights.stat().st_size)
    register_encoder(EncoderEntry(TINY, "tiny", build_tiny, 64, 16, 4, source, 0.01, 0.01, "for tests", channels=32))
    embed.supports_bfloat16 = lambda device: False
    folders = find_folders(root)
    with join_team("cpu") as device:
        train_without_dropout(find_dataset(900, folders), folders, results, device)
