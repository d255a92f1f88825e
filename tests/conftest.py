"""What many tests share: a small random encoder in the published layout, and a phantom data set prepared with it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from autosam_net.commands.cli import load_libraries
from autosam_net.data.dataset import find_dataset
from autosam_net.encoders.catalog import ENCODERS, EncoderEntry, WeightsSource, register_encoder
from autosam_net.parallel import available_cores
from autosam_net.paths import find_folders
from autosam_net.preprocessing.preprocess import preprocess_dataset
from tests.support import TINY, Prepared, TinyNetwork, build_tiny, tiny_plan, write_records

# a busy machine is no mistake
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among the processes that test side by side, and with what each of them starts."""
    if count := getattr(config, "workerinput", {}).get("workercount"):
        threads = max(1, available_cores() // count)
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture(autouse=True)
def _level_of_the_log() -> None:
    """Forget the level that a command run in this process has given the log."""
    logging.getLogger("autosam_net").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register the tiny encoder and return its checkpoint, written in SAM's layout."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    generator_state = torch.get_rng_state()
    torch.manual_seed(7)
    network = TinyNetwork()
    torch.set_rng_state(generator_state)
    torch.save({f"image_encoder.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    if TINY not in ENCODERS:
        source = WeightsSource(file="tiny.pth", sha256=None, size=path.stat().st_size)
        register_encoder(
            EncoderEntry(TINY, "tiny", build_tiny, 64, 16, 4, source, 0.01, 0.01, "for tests", channels=32)
        )
    return path


@pytest.fixture
def place(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder to work in; the tiny encoder takes the place of the default one."""
    (tmp_path / "weights").mkdir()
    shutil.copy(tiny_weights, tmp_path / "weights")
    monkeypatch.setattr("autosam_net.encoders.weights.weights_folder", lambda: tmp_path / "weights")
    monkeypatch.setattr("planning.rules.encoder.CPU_ENCODER", TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Prepared:
    """Return a preprocessed phantom of six patients; tests must not change its raw or preprocessed files."""
    from dataset_conversion.example import write_example

    load_libraries("monai.losses")  # on a busy machine the first command to do it would show a bar
    root = tmp_path_factory.mktemp("prepared")
    folders = find_folders(root)
    write_example(folders.raw, patients=6, frames=1, shape=(3, 96, 96))
    dataset = find_dataset(900, folders)
    plan = tiny_plan(dataset, tiny_weights)
    preprocess_dataset(dataset, plan, folders, workers=1)
    write_records(dataset, plan, folders)
    return Prepared(dataset, plan, folders, root)
