"""Training: deterministic, interruptible, and its results where they belong."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosam_net.data.plan import Plan, load_plan
from autosam_net.embedding.embed import embeddings_folder
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import ModelError, PlanError, UsageError
from autosam_net.inference.trained_head import load_head
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_record
from autosam_net.preprocessing.slices import count_inputs
from autosam_net.training import loop, stored_model, train
from autosam_net.training.cases import training_split
from autosam_net.training.loop import learning_rate, pace_of
from autosam_net.training.run import TrainingOptions, list_models
from autosam_net.training.train import train_head
from tests.support import TINY, Prepared, copied, with_unet


@pytest.fixture
def folders(prepared: Prepared, tmp_path: Path) -> Folders:
    return replace(prepared.folders, results=tmp_path / "results")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_fold_is_trained_and_its_folder_tells_everything(prepared: Prepared, folders: Folders) -> None:
    folder = train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders)
    assert folder == folders.results / prepared.dataset.name / "cnn" / "fold_0"
    rows = list(csv.DictReader((folder / "training_log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert (folder / "progress.png").stat().st_size > 1000
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["iterations"] == 10 and manifest["epochs"] == 2
    assert manifest["settings"]["head"] == "cnn" and manifest["encoder"] == TINY
    assert {"command", "finished", "machine", "peak_memory_mib", "versions", "encoder_sha256"} <= set(manifest)
    assert not set(manifest["trained_on"]) & set(manifest["held_out"])
    (model,) = list_models(folders)
    assert model.trained_folds() == ["0"]


def test_training_lowers_the_loss(prepared: Prepared, folders: Folders) -> None:
    folder = train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(epochs=6), folders)
    rows = csv.DictReader((folder / "training_log.csv").read_text().splitlines())
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.8 * losses[0]


def test_a_network_from_scratch_learns_and_its_model_names_its_encoder(prepared: Prepared, folders: Folders) -> None:
    options = TrainingOptions(epochs=6)
    folder = train_head(prepared.dataset, with_unet(prepared.plan), "unet", 0, options, folders)
    rows = csv.DictReader((folder / "training_log.csv").read_text().splitlines())
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.9 * losses[0]
    plan = load_plan(folder.parent / "plan.json")
    assert plan == with_unet(prepared.plan).for_configuration("unet")
    views = prepared.plan.encoding.views_for(count_slices(prepared, folder))
    assert json.loads((folder / "run.json").read_text())["views"] == views


def test_fresh_views_are_learnt_from_without_a_cache(prepared: Prepared, tmp_path: Path) -> None:
    place = copied(prepared, tmp_path)
    options = TrainingOptions(fresh_views=True)
    folder = train_head(place.dataset, place.plan, "cnn", 0, options, place.folders)
    assert not embeddings_folder(place.dataset, place.folders).exists()
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["views"] == 0 and manifest["options"]["fresh_views"] is True
    again = train_head(place.dataset, place.plan, "cnn", 0, replace(options, overwrite=True), place.folders)
    assert weights(again) == weights(folder)
    with pytest.raises(PlanError, match="trained before"):
        train_head(place.dataset, place.plan, "cnn", 0, TrainingOptions(), place.folders)


def count_slices(prepared: Prepared, folder: Path) -> int:
    cases = json.loads((folder / "run.json").read_text())["trained_on"]
    shapes = [load_record(cases_folder(prepared.dataset, prepared.folders) / case).properties.shape for case in cases]
    return sum(count_inputs(shape, prepared.plan.encoding) for shape in shapes)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(prepared: Prepared, folders: Folders) -> None:
    options = TrainingOptions()
    first = weights(train_head(prepared.dataset, prepared.plan, "cnn", 1, options, folders))
    again = replace(options, overwrite=True)
    assert weights(train_head(prepared.dataset, prepared.plan, "cnn", 1, again, folders)) == first
    other = replace(options, seed=1)
    assert weights(train_head(prepared.dataset, prepared.plan, "cnn", 1, other, folders)) != first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_an_interrupted_training_continues_to_the_same_bytes(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch, number: int, stop_at: int
) -> None:
    undisturbed = weights(train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders))
    shutil.rmtree(folders.results)
    plain_step = loop.step

    def step_and_signal(state, loss, rate):
        plain_step(state, loss, rate)
        if state.iteration == stop_at:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "step", step_and_signal)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders)
    monkeypatch.setattr(loop, "step", plain_step)
    folder = folders.results / prepared.dataset.name / "cnn" / "fold_0"
    assert (folder / "checkpoint.safetensors").exists() and not (folder / "model.safetensors").exists()
    train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(resume=True), folders)
    assert weights(folder) == undisturbed
    assert len(list(csv.DictReader((folder / "training_log.csv").read_text().splitlines()))) == 2


def test_an_earlier_training_is_never_lost_unasked(prepared: Prepared, folders: Folders) -> None:
    folder = train_head(prepared.dataset, prepared.plan, "linear", 0, folders=folders)
    before = weights(folder)
    with pytest.raises(PlanError, match=r"was trained before. Give --continue .* or --overwrite"):
        train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(epochs=3), folders)
    train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(epochs=3, resume=True), folders)
    train_head(prepared.dataset, prepared.plan, "linear", 0, folders=folders)
    assert weights(folder) == before


def test_a_head_of_another_fold_is_found(prepared: Prepared, folders: Folders) -> None:
    first, second = (train_head(prepared.dataset, prepared.plan, "linear", fold, folders=folders) for fold in (0, 1))
    source = EncoderSource(prepared.plan.encoding, "cpu")
    load_head(second / "model.safetensors", prepared.plan, source)
    shutil.copy(first / "model.safetensors", second)
    with pytest.raises(ModelError, match=r"fold_1/model.safetensors: not the head that run.json beside it tells of"):
        load_head(second / "model.safetensors", prepared.plan, source)


def test_a_time_limit_shortens_the_training(
    prepared: Prepared, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    options = TrainingOptions(epochs=10_000, max_minutes=0.05)
    folder = train_head(prepared.dataset, prepared.plan, "linear", 0, options, folders)
    rows = list(csv.DictReader((folder / "training_log.csv").read_text().splitlines()))
    assert 1 <= len(rows) < 10_000
    assert "the time limit allows" in caplog.text and "before training begins" not in caplog.text
    assert float(rows[-1]["learning_rate"]) < float(rows[len(rows) // 2]["learning_rate"]) or len(rows) < 8


def test_one_epoch_that_was_held_up_does_not_shorten_the_rest() -> None:
    rows = [{"seconds": seconds} for seconds in (9.0, 9.0, 2.0, 2.0, 2.0, 40.0)]
    assert pace_of(rows) == 2.0
    assert pace_of(rows + [{"seconds": 40.0}] * 2) == 40.0
    assert pace_of(rows[:1]) == 9.0


def test_a_time_limit_that_encoding_has_used_up_is_told(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = copied(prepared, tmp_path)
    shutil.rmtree(embeddings_folder(place.dataset, place.folders), ignore_errors=True)
    options = TrainingOptions(epochs=3, max_minutes=1e-9)
    folder = train_head(place.dataset, place.plan, "linear", 0, options, place.folders)
    assert "minutes are over before training begins, the limit is 1e-09; one epoch is trained" in caplog.text
    assert place.plan.encoding.views_for(count_slices(place, folder)) > 1
    assert json.loads((folder / "run.json").read_text())["views"] == 1
    assert len((folder / "training_log.csv").read_text().splitlines()) == 2


def test_labelled_patients_are_drawn_by_seed_and_validation_stays(prepared: Prepared) -> None:
    every = training_split(prepared.dataset, "0", TrainingOptions(), prepared.folders)
    drawn = {
        seed: training_split(prepared.dataset, "0", TrainingOptions(labelled=1, seed=seed), prepared.folders)
        for seed in range(6)
    }
    for split in drawn.values():
        assert split.val == every.val
        assert len(split.train) == 1 and set(split.train) < set(every.train)
    assert len({split.train for split in drawn.values()}) > 1
    more = training_split(prepared.dataset, "0", TrainingOptions(labelled=3, seed=0), prepared.folders)
    assert set(drawn[0].train) < set(more.train)


def test_too_many_labelled_patients_and_unknown_folds_are_refused(prepared: Prepared, folders: Folders) -> None:
    with pytest.raises(UsageError, match="--labelled 9: this fold trains on 4 patients"):
        train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(labelled=9), folders)
    with pytest.raises(UsageError, match="fold 7 does not exist; this data set has folds 0-4 and all"):
        train_head(prepared.dataset, prepared.plan, "cnn", 7, folders=folders)
    with pytest.raises(PlanError, match="no configuration 'cnnn'; did you mean 'cnn'"):
        train_head(prepared.dataset, prepared.plan, "cnnn", 0, folders=folders)
    assert not folders.results.exists()


@pytest.fixture
def unfinished(prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a fold whose training was stopped after the first of two epochs."""

    plain_save = loop.save_checkpoint

    def save_and_stop(*arguments: Any) -> None:
        plain_save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders)
    return folders.results / prepared.dataset.name / "cnn" / "fold_0"


@pytest.mark.parametrize(("epochs", "done"), [(1, 1), (2, 2), (4, 4)])
def test_going_on_to_another_number_of_epochs(
    prepared: Prepared, folders: Folders, unfinished: Path, epochs: int, done: int
) -> None:
    train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(epochs=epochs, resume=True), folders)
    assert json.loads((unfinished / "run.json").read_text())["iterations"] == 5 * done


def test_a_killed_training_goes_on_from_its_last_epoch_to_the_same_bytes(
    prepared: Prepared, folders: Folders, unfinished: Path
) -> None:
    train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(resume=True), folders)
    killed = weights(unfinished)
    train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(overwrite=True), folders)
    assert weights(unfinished) == killed


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, encoding=replace(plan.encoding, overlap=0.5)),
        lambda plan: replace(
            plan, configurations={**plan.configurations, "cnn": replace(plan.configuration("cnn"), learning_rate=1.0)}
        ),
    ],
)
def test_a_training_goes_on_with_its_own_plan_only(
    prepared: Prepared, folders: Folders, unfinished: Path, change: Callable[[Plan], Plan]
) -> None:
    with pytest.raises(ModelError, match="this training began with another plan"):
        train_head(prepared.dataset, change(prepared.plan), "cnn", 0, TrainingOptions(resume=True), folders)
    assert (unfinished / "checkpoint.safetensors").is_file()


def test_weights_that_have_moved_are_the_same_weights(
    prepared: Prepared, folders: Folders, unfinished: Path, tmp_path: Path
) -> None:
    moved = shutil.copy(prepared.plan.encoding.weights or "", tmp_path / "moved.pth")
    plan = replace(prepared.plan, encoding=replace(prepared.plan.encoding, weights=str(moved)))
    train_head(prepared.dataset, plan, "cnn", 0, TrainingOptions(resume=True), folders)
    assert (unfinished / "model.safetensors").is_file()


def test_a_loss_that_is_no_number_ends_the_training(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.SegmentationLoss, "forward", lambda self, logits, labels: logits.sum() * float("nan"))
    with pytest.raises(ModelError, match=r"the loss is nan in epoch 1. Lower learning_rate"):
        train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders)
    assert not list(folders.results.rglob("*.safetensors"))


def test_the_model_appears_after_everything_else(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(stored_model, "save_tensors", fail)
    with pytest.raises(OSError, match="disk full"):
        train_head(prepared.dataset, prepared.plan, "cnn", 0, folders=folders)
    folder = folders.results / prepared.dataset.name / "cnn" / "fold_0"
    assert (folder / "run.json").is_file()
    assert list(list_models(folders)) == []


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [learning_rate(iteration, 400, 1e-3) for iteration in range(400)]
    assert rates[0] < rates[10] < max(rates) <= 1e-3
    assert rates[-1] < 1e-6
    assert rates[50:] == sorted(rates[50:], reverse=True)
