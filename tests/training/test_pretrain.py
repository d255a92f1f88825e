"""Pretraining without labels: what is seen, what comes out, how it is found again, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autosam_net.data.dataset import find_dataset
from autosam_net.data.splits import load_splits
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.encoders.encoder import IMAGE_ENCODER, load_encoder, read_checkpoint
from autosam_net.encoders.pretrained import PretrainedRecord, find_record
from autosam_net.encoders.weights import find_weights, weights_sha256
from autosam_net.errors import ModelError, PlanError, UsageError, WeightsError
from autosam_net.heads.head import HeadShape, build_head
from autosam_net.inference.package import export_model, load_model_zip
from autosam_net.inference.trained_head import load_head
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, preprocess_dataset
from autosam_net.training import loop
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.contrastive import ContrastiveModel
from autosam_net.training.pretrain import PretrainingOptions, pretrain
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import TINY, VITS, Prepared, copied, with_unet

QUICK = PretrainingOptions(epochs=2)
UNET = replace(QUICK, configuration="unet", batch_size=4)


@pytest.fixture
def folders(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Return folders with results of their own; the user's folder of pretrained networks is empty."""
    monkeypatch.setenv("autosam_encoders", str(tmp_path / "encoders"))
    monkeypatch.setattr("autosam_net.training.curves._draw", lambda *_: None)
    monkeypatch.setattr("autosam_net.training.pretrain.ITERATIONS", 2)
    return replace(prepared.folders, results=tmp_path / "results")


def manifest(folders: Folders, record: PretrainedRecord) -> Any:
    return json.loads((folders.results / record.dataset / "pretraining" / record.name / "run.json").read_text())


def test_an_encoder_is_found_by_its_name_and_differs(prepared: Prepared, folders: Folders) -> None:
    record = pretrain(prepared.dataset, prepared.plan, QUICK, folders)
    assert record.name == f"{TINY}_900_fold0"
    assert record.name in ENCODERS and record.name in ENCODERS.names()
    assert find_weights(record.name) == record.file
    assert weights_sha256(record.name) == record.sha256
    entry, base = ENCODERS.get(record.name), ENCODERS.get(TINY)
    assert (entry.stride, entry.channels, entry.multiple) == (base.stride, base.channels, base.multiple)
    assert "masked image modelling" in entry.description and "fold 0" in entry.description
    images = torch.rand(1, 3, 64, 64)
    found, before = load_encoder(record.name), load_encoder(TINY, weights=prepared.plan.encoding.weights_file)
    assert found.weights_sha256 == record.sha256
    assert not torch.equal(found(images), before(images))


def test_the_same_seed_gives_the_same_file(prepared: Prepared, folders: Folders) -> None:
    shas = [
        pretrain(prepared.dataset, prepared.plan, replace(QUICK, name=name, seed=seed), folders).sha256
        for name, seed in (("one", 3), ("two", 3), ("three", 4))
    ]
    assert shas[0] == shas[1] != shas[2]


def test_it_learns(prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WARM_UP", 1)
    monkeypatch.setattr("autosam_net.training.pretrain.NEW_RATE", 1e-2)
    record = pretrain(prepared.dataset, prepared.plan, replace(QUICK, epochs=25, batch_size=2), folders)
    rows = (folders.results / record.dataset / "pretraining" / record.name / "training_log.csv").read_text().split()
    columns = rows[0].split(",")
    assert columns == ["epoch", "iteration", "learning_rate", "seconds", "loss"]
    losses = [float(row.split(",")[-1]) for row in rows[1:]]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize("options", [QUICK, UNET], ids=["masked", "contrastive"])
def test_an_interrupted_pretraining_goes_on_to_the_same_bytes(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch, options: PretrainingOptions
) -> None:
    plan = with_unet(prepared.plan)
    undisturbed = pretrain(prepared.dataset, plan, options, folders).sha256
    plain_step = loop.step

    def step_and_signal(state: Any, loss: torch.Tensor, rate: float) -> None:
        plain_step(state, loss, rate)
        if state.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loop, "step", step_and_signal)
        pretrain(prepared.dataset, plan, replace(options, overwrite=True), folders)
    assert ENCODERS.names() == [name for name in ENCODERS.names() if find_record(name) is None]
    assert pretrain(prepared.dataset, plan, options, folders).sha256 == undisturbed


@pytest.mark.parametrize("encoder", [*VITS, "mobile_sam", "lite_medsam"])
def test_every_encoder_of_the_catalogue(
    prepared: Prepared, folders: Folders, checkpoints: dict[str, Path | None], encoder: str
) -> None:
    file = checkpoints[encoder]
    encoding = replace(prepared.plan.encoding, encoder=encoder, weights=file and str(file), input_size=64, pixels=False)
    options = PretrainingOptions(epochs=1, batch_size=1, name="mine")
    record = pretrain(prepared.dataset, replace(prepared.plan, encoding=encoding), options, folders)
    assert record.base == encoder
    before, after = read_checkpoint(find_weights(encoder, file)), read_checkpoint(record.file)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor.shape, tensor.dtype) == (after[name].shape, after[name].dtype)
        if not name.startswith(IMAGE_ENCODER) or name.endswith("pos_embed"):
            assert torch.equal(tensor, after[name]), "the decoder stays, and so do positions fitted to the input"
    images = torch.rand(1, 3, 64, 64)
    start = load_encoder(encoder, 64, file, precision="float32")(images)
    moved = (load_encoder("mine", 64, precision="float32")(images) - start).norm() / start.norm()
    assert 0 < moved < 0.5, "two steps at a small rate"


def test_only_the_training_part_is_seen(prepared: Prepared, folders: Folders) -> None:
    splits = load_splits(prepared.folders.preprocessed / prepared.dataset.name / "splits_final.json")
    for fold in ("0", "all"):
        record = pretrain(prepared.dataset, prepared.plan, replace(QUICK, fold=fold), folders)
        expected = splits[0].train if fold == "0" else {*splits[0].train, *splits[0].val}
        assert set(manifest(folders, record)["learnt_from"]) == set(expected)
        assert record.cases == len(expected)
        assert not any(case in record.file.with_suffix(".json").read_text() for case in expected), "names stay behind"


@pytest.fixture
def own(prepared: Prepared, folders: Folders, tmp_path: Path) -> Prepared:
    """Return a copy of the phantom that may be changed."""
    place = copied(prepared, tmp_path / "own")
    return replace(place, folders=replace(place.folders, results=folders.results))


def scan_of(place: Prepared, case: str) -> Path:
    return next((place.dataset.folder / "imagesTr").glob(f"{case}_0000*"))


def test_more_scans_are_seen_but_not_those_of_held_out_patients(
    own: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = load_splits(own.folders.preprocessed / own.dataset.name / "splits_final.json")
    held_out, trained = splits[0].val[0], splits[0].train[0]
    ending = own.dataset.file_ending
    unlabelled, more = own.dataset.folder / "imagesUn", tmp_path / "more"
    for folder, name, source in (
        (unlabelled, "patient091_frame01", trained),
        (unlabelled, held_out.replace("frame01", "frame09"), trained),  # another scan of that patient
        (more, "patient092_frame01", trained),
        (more, "patient093_frame01", held_out),  # the very image, called otherwise
    ):
        folder.mkdir(exist_ok=True)
        shutil.copy(scan_of(own, source), folder / f"{name}_0000{ending}")
    preprocess_dataset(own.dataset, own.plan, own.folders, workers=1)
    with caplog.at_level("INFO"):
        record = pretrain(own.dataset, own.plan, replace(QUICK, unlabelled=more), own.folders)
    seen = set(manifest(own.folders, record)["learnt_from"])
    assert seen == {*splits[0].train, "patient091_frame01", "patient092_frame01"}
    assert "1 scans in imagesUn are left out: the fold holds out their patients" in caplog.text
    assert "1 scans are left out: their images are those of cases held out" in caplog.text
    assert (cases_folder(own.dataset, own.folders) / trained).is_dir()


def test_heads_train_on_it_and_folds_that_were_seen_are_announced(
    prepared: Prepared, folders: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = pretrain(prepared.dataset, prepared.plan, QUICK, folders)
    encoding = replace(prepared.plan.encoding, encoder=record.name, weights=None)
    plan = replace(prepared.plan, encoding=encoding)
    own = replace(folders, preprocessed=tmp_path / "preprocessed")
    shutil.copytree(folders.preprocessed, own.preprocessed, ignore=shutil.ignore_patterns("embeddings"))
    folder = train_head(prepared.dataset, plan, "linear", 0, TrainingOptions(labelled=1, epochs=1), own)
    assert "its figures flatter" not in caplog.text
    head = load_head(folder / "model.safetensors", plan, EncoderSource(plan.encoding, "cpu"))
    assert head is not None
    facts = load_tensors(folder / "model.safetensors")[1]
    assert (facts["encoder"], facts["encoder_sha256"]) == (record.name, record.sha256)
    train_head(prepared.dataset, plan, "linear", 1, TrainingOptions(labelled=1, epochs=1), own)
    assert re.search(r"pretrained on the images of \d+ of the \d+ cases that this fold holds out", caplog.text)


def test_a_pretrained_unet_is_begun_with(prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = with_unet(prepared.plan)
    record = pretrain(prepared.dataset, plan, UNET, folders)
    assert (record.name, record.base, record.method) == ("unet_900_fold0", "unet", "contrastive")
    assert record.name not in ENCODERS
    weights, first = load_tensors(record.file)[0], []
    assert weights and all(name.startswith("down.") for name in weights)
    plain_step = loop.step

    def remember(state: Any, loss: torch.Tensor, rate: float) -> None:
        if state.iteration == 0:
            first.append({name: tensor.clone() for name, tensor in state.model.state_dict().items()})
        plain_step(state, loss, rate)

    monkeypatch.setattr(loop, "step", remember)
    options = TrainingOptions(labelled=1, epochs=1)
    train_head(prepared.dataset, plan, "unet", 0, options, folders)
    folder = train_head(prepared.dataset, plan, "unet", 0, replace(options, pretrained=record.name), folders)
    assert folder.parent.name == f"unet_from-{record.name}_labelled1_seed0"
    random, begun = first
    for name, tensor in begun.items():
        assert torch.equal(tensor, weights.get(name, random[name])), "all else is as from scratch"
    assert json.loads((folder / "run.json").read_text())["pretrained"] == {
        "name": record.name,
        "sha256": record.sha256,
    }
    record.file.unlink()  # the trained head needs it no more
    tuned = plan.for_configuration("unet")
    load_head(folder / "model.safetensors", tuned, EncoderSource(tuned.encoding, "cpu"))


def test_the_same_command_again_makes_nothing_and_another_is_refused(prepared: Prepared, folders: Folders) -> None:
    record = pretrain(prepared.dataset, prepared.plan, QUICK, folders)
    written = record.file.stat().st_mtime_ns
    assert pretrain(prepared.dataset, prepared.plan, QUICK, folders) == record
    assert record.file.stat().st_mtime_ns == written
    longer = replace(QUICK, epochs=3)
    with pytest.raises(UsageError, match=r"made before, of other data or settings\. Give another --name, or --overw"):
        pretrain(prepared.dataset, prepared.plan, longer, folders)
    assert pretrain(prepared.dataset, prepared.plan, replace(longer, overwrite=True), folders).sha256 != record.sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(QUICK, fold="9"), r"fold 9 does not exist; this data set has folds 0-4 and all"),
        (replace(QUICK, name="a/b"), r"--name a/b: give letters, digits"),
        (replace(QUICK, name=TINY), rf"--name {TINY}: an encoder is called so"),
        (replace(QUICK, name="vit_b"), r"--name vit_b: an encoder is called so"),
        (replace(QUICK, configuration="cnn"), rf"-c cnn: works on the encoder {TINY}; .* Leave it out to pretrain"),
        (replace(QUICK, unlabelled=Path("nowhere")), r"--unlabelled nowhere: no \.nii\.gz files in it"),
        (replace(UNET, batch_size=1), r"-c unet: a batch of 1 has nothing to tell apart"),
    ],
)
def test_what_cannot_be_is_refused(
    prepared: Prepared, folders: Folders, options: PretrainingOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(prepared.dataset, with_unet(prepared.plan), options, folders)
    assert list(ENCODERS) == [name for name in ENCODERS if find_record(name) is None]


def test_the_test_cases_are_refused(prepared: Prepared, folders: Folders) -> None:
    options = replace(QUICK, unlabelled=prepared.dataset.folder / "imagesTs")
    with pytest.raises(UsageError, match="these are the test cases, which nothing may be learnt from"):
        pretrain(prepared.dataset, prepared.plan, options, folders)


def test_a_head_without_a_contracting_path_is_refused() -> None:
    with pytest.raises(UsageError, match="the head linear has no contracting path that could be pretrained"):
        ContrastiveModel(build_head("linear", HeadShape(4, 32, 4, 64), {}, {}), "linear")


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("unet_900_fold1", "unet", r"no such network in .*; did you mean 'unet_900_fold0'"),
        ("mine", "unet", r"--pretrained mine: an encoder\. Plan with --encoder mine instead"),
        ("unet_900_fold0", "cnn", r"of the head unet, not of cnn"),
    ],
)
def test_what_does_not_fit_a_head_is_refused(
    prepared: Prepared, folders: Folders, name: str, head: str, message: str
) -> None:
    plan = with_unet(prepared.plan)
    pretrain(prepared.dataset, plan, UNET, folders)
    pretrain(prepared.dataset, plan, replace(QUICK, name="mine"), folders)
    with pytest.raises(UsageError, match=message):
        train_head(prepared.dataset, plan, head, 0, TrainingOptions(pretrained=name), folders)


def test_what_is_damaged_or_of_another_width_is_refused(prepared: Prepared, folders: Folders) -> None:
    plan = with_unet(prepared.plan)
    record = pretrain(prepared.dataset, plan, UNET, folders)
    wider = replace(plan.configuration("unet"), settings={"width": 8.0})
    options = TrainingOptions(labelled=1, epochs=1, pretrained=record.name)
    with pytest.raises(WeightsError, match=r"of a head with other settings \(.*\)\. Pretrain this one\."):
        train_head(prepared.dataset, replace(plan, configurations={"unet": wider}), "unet", 0, options, folders)
    record.file.write_bytes(record.file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"missing, or not what its record says\. Make it again"):
        train_head(prepared.dataset, plan, "unet", 0, options, folders)
    encoder = pretrain(prepared.dataset, plan, replace(QUICK, name="mine"), folders)
    encoder.file.unlink()
    with pytest.raises(WeightsError, match=r"mine: its weights are not here; put mine\.safetensors .* into .*encoders"):
        load_encoder("mine")
    text = encoder.file.with_suffix(".json").read_text()
    encoder.file.with_suffix(".json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(PlanError, match=r"mine\.json"):
        ENCODERS.get("mine")
    assert "mine" not in list(ENCODERS)


def test_other_data_do_not_go_on_from_a_checkpoint(own: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("autosam_net.training.pretrain._keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        pretrain(own.dataset, own.plan, QUICK, own.folders)
    with pytest.raises(ModelError, match="this training began with another plan, other cases or other weights"):
        pretrain(own.dataset, own.plan, replace(QUICK, seed=5, name=f"{TINY}_900_fold0"), own.folders)
    assert find_dataset(900, own.folders) == own.dataset


def test_a_model_on_it_is_handed_on_by_name_and_checksum(
    prepared: Prepared, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = pretrain(prepared.dataset, prepared.plan, QUICK, folders)
    encoding = replace(prepared.plan.encoding, encoder=record.name, weights=None)
    plan = replace(prepared.plan, encoding=encoding)
    train_head(prepared.dataset, plan, "linear", 0, TrainingOptions(labelled=1, epochs=1), folders)
    manifest = export_model(prepared.dataset.identifier, tmp_path / "model.zip", folders=folders)
    assert (manifest.encoder.name, manifest.encoder.sha256) == (record.name, record.sha256)
    assert manifest.encoder.origin is None
    load_model_zip(tmp_path / "model.zip")
    monkeypatch.setenv("autosam_encoders", str(tmp_path / "receiver"))
    message = rf"its heads need the encoder {record.name} \(sha256 {record.sha256}\), which is not known here\. Get"
    with pytest.raises(WeightsError, match=message):
        load_model_zip(tmp_path / "model.zip")
    shutil.copytree(tmp_path / "encoders", tmp_path / "receiver")
    load_model_zip(tmp_path / "model.zip")
