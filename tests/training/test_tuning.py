"""Every strategy of the empirical study on every encoder: a step, what is stored, loading, and a prediction."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.data.configuration import STRATEGIES, Tuning
from autosam_net.data.plan import Plan
from autosam_net.embedding.cache import list_entries
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.encoder import load_encoder
from autosam_net.encoders.weights import weights_sha256
from autosam_net.errors import ModelError, PlanError, UsageError
from autosam_net.evaluation.case_table import CASES_FILE, METRICS, replace_cases
from autosam_net.evaluation.gain import Gain
from autosam_net.inference.load import load_model
from autosam_net.inference.onnx_graph import export_onnx
from autosam_net.inference.package import export_model, load_model_zip
from autosam_net.inference.predict import slice_probabilities
from autosam_net.inference.trained_head import load_head
from autosam_net.inference.validate import train_and_validate
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.training import loop, train
from autosam_net.training.cases import training_split
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.fold_training import poly_rate
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import TINY, VITS, Prepared, with_unet

TINY_VIT = (128, 128, *[160] * 6, 320, 320)  # widths of its attention blocks
PER_CLASS = 256 + 2 * (256 * 256 + 256) + 256 * 32 + 32  # parameters of a token and its hyper-network
CLASSES = 4
DECODER_LORA = 2 * 2 * 4 * (256 + 256) + 5 * 2 * 4 * (256 + 128)  # two self-attentions, five cross attentions


def widths(encoder: str) -> tuple[int, ...]:
    return (VITS[encoder][1],) * VITS[encoder][0] if encoder in VITS else TINY_VIT


def adapter(width: int) -> int:
    return 2 * width * (width // 4) + width // 4 + width


def expected_of_encoder(encoder: str, method: str) -> int | None:
    """Return how many parameters of an encoder learn; None for all of them."""
    blocks = widths(encoder)
    if method == "lora":
        return sum(2 * 4 * (width + width) for width in blocks)
    chosen = blocks if len(blocks) < 4 else (*blocks[:2], *blocks[-2:])
    return sum(2 * adapter(width) for width in chosen) if method == "adapter" else None


def expected_of_head(method: str) -> int | None:
    added = {"lora": DECODER_LORA, "adapter": 6 * adapter(256)}
    return CLASSES * PER_CLASS + added[method] if method in added else None


@pytest.fixture
def folders(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setattr("autosam_net.training.curves._draw", lambda *_: None)
    monkeypatch.setattr("autosam_net.data.configuration.TUNED_ITERATIONS", 2)
    return replace(prepared.folders, results=tmp_path / "results")


def planned(plan: Plan, encoder: str, weights: Path | None) -> Plan:
    """Return the plan with an encoder and a `vit` head, trained for one step."""
    encoding = replace(plan.encoding, encoder=encoder, weights=None if weights is None else str(weights))
    vit = replace(
        plan.configuration("cnn"), head="vit", epochs=1, maximum_epochs=1, iterations=1, batch_size=2, crop=1.0
    )
    return replace(plan, encoding=encoding, configurations={"vit": vit})


def plain_name(name: str) -> str:
    return name.replace(".parametrizations.weight.original", ".weight")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("encoder", [*VITS, "mobile_sam", "lite_medsam"])
def test_a_step_is_trained_stored_loaded_and_predicts(
    prepared: Prepared,
    folders: Folders,
    checkpoints: dict[str, Path | None],
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    strategy: str,
) -> None:
    plan = planned(prepared.plan, encoder, checkpoints[encoder])
    trained: list[nn.Module] = []
    plain_save = train.save_model
    monkeypatch.setattr(train, "save_model", lambda run, state: (trained.append(state.model), plain_save(run, state)))
    options = TrainingOptions(labelled=1, tune=strategy, epochs=1)
    folder = train_head(prepared.dataset, plan, "vit", 0, options, folders)
    tuned = plan.for_configuration("vit", options.tuning)

    counts = json.loads((folder / "run.json").read_text())["parameters"]
    part, _, method = strategy.partition(":")
    stored, _ = load_tensors(folder / "model.safetensors")
    assert counts["head"]["trained"] == (expected_of_head(method) or counts["head"]["all"])
    if part == "head":
        assert set(counts) == {"head"}
    else:
        assert counts["encoder"]["trained"] == (expected_of_encoder(encoder, method) or counts["encoder"]["all"])
    position = sum(tensor.numel() for name, tensor in stored.items() if name.endswith("gaussian_matrix"))
    learnt = sum(count["trained"] for count in counts.values())
    assert sum(tensor.numel() for tensor in stored.values()) == learnt + position

    source = EncoderSource(tuned.encoding, "cpu")
    published = load_encoder(encoder, 64, checkpoints[encoder], precision="float32").state_dict()
    assert_frozen(trained[0], published)
    model = load_head(folder / "model.safetensors", tuned, source)
    case = load_case(next(cases_folder(prepared.dataset, prepared.folders).iterdir()))
    probabilities = next(slice_probabilities(case, [model], plan.label_set, source))
    assert probabilities.shape == (CLASSES, 96, 96) and np.isfinite(probabilities).all()


def assert_frozen(model: nn.Module, published: dict[str, torch.Tensor]) -> None:
    """Compare what did not learn in an encoder with the checkpoint, bit by bit; what learns has moved."""
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.") and not parameter.requires_grad:
            assert torch.equal(parameter, published[plain_name(name.removeprefix("encoder."))]), name
    moved = [p for name, p in model.named_parameters() if name.endswith((".up", "up.weight")) and p.requires_grad]
    assert all(parameter.any() for parameter in moved)


@pytest.mark.parametrize("head", ["cnn", "linear"])
def test_other_heads_tune_the_encoder_only(prepared: Prepared, folders: Folders, head: str) -> None:
    plan = planned(prepared.plan, "lite_medsam", None)
    plan = replace(plan, configurations={head: replace(plan.configuration("vit"), head=head)})
    options = TrainingOptions(labelled=1, tune="encoder+head:lora", epochs=1)
    folder = train_head(prepared.dataset, plan, head, 0, options, folders)
    assert folder.parent.name == f"{head}_encoder-lora_labelled1_seed0"
    counts = json.loads((folder / "run.json").read_text())["parameters"]
    assert counts["head"]["trained"] == counts["head"]["all"]
    assert (folder / "model.safetensors").stat().st_size < 2e6
    with pytest.raises(PlanError, match=rf"{head}: tuning: the head {head} has nothing pretrained"):
        train_head(prepared.dataset, plan, head, 0, replace(options, tune="head:lora"), folders)


WHOLE = TrainingOptions(tune="encoder+head:full", epochs=2)


@pytest.fixture
def tuned_folds(prepared: Prepared, folders: Folders) -> Folders:
    """Return folders whose results hold two folds of a tuned encoder with a linear head, and one without tuning."""
    for fold in ("0", "1"):
        train_and_validate(prepared.dataset, prepared.plan, "linear", fold, WHOLE, folders)
    train_head(prepared.dataset, prepared.plan, "linear", "0", TrainingOptions(), folders)
    return folders


def test_every_fold_brings_its_encoder_and_the_cache_holds_nothing_tuned(
    prepared: Prepared, tuned_folds: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = load_model(900, ["linear_encoder-full"], folders=tuned_folds)
    assert "2 encoder passes where a frozen one takes one" in caplog.text
    assert not torch.equal(*(head.encoder.network.first.weight for head in model.heads))
    root = prepared.folders.preprocessed / prepared.dataset.name / "embeddings"
    keys = [record.key for _, record in list_entries(root) if record is not None]
    published = weights_sha256(TINY, prepared.plan.encoding.weights_file)
    assert {key.weights_sha256 for key in keys if key.encoder in (TINY, "image")} <= {published, "none"}
    image = prepared.dataset.folder / "imagesTr"
    assert len(model.predict_folder(image, tmp_path / "out")) == 6
    with pytest.raises(ModelError, match=r"only one of .* has tuned the encoder; predict with each alone"):
        load_model(900, ["linear", "linear_encoder-full"], folders=tuned_folds)
    with pytest.raises(ModelError, match=r"--onnx: .* this model has tuned it"):
        export_onnx(model, tmp_path / "model.onnx")


def test_a_tuned_model_is_handed_on(prepared: Prepared, tuned_folds: Folders, tmp_path: Path) -> None:
    weights = prepared.plan.encoding.weights_file
    manifest = export_model(900, tmp_path / "model.zip", ["linear_encoder-full"], folders=tuned_folds)
    assert manifest.encoder.name == TINY
    again = load_model_zip(tmp_path / "model.zip", weights=weights)
    here = load_model(900, ["linear_encoder-full"], folders=tuned_folds)
    state, other = (model.heads[1].state_dict() for model in (here, again))
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_plan_that_says_otherwise_is_refused(prepared: Prepared, tuned_folds: Folders) -> None:
    file = tuned_folds.results / prepared.dataset.name / "linear_encoder-full" / "fold_0" / "model.safetensors"
    with pytest.raises(ModelError, match=r"plan.json says otherwise whether it has tuned the encoder"):
        load_head(file, prepared.plan, EncoderSource(prepared.plan.encoding, "cpu"))


def test_a_trained_head_is_the_start(prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(prepared.plan, "lite_medsam", None)
    monkeypatch.setattr("autosam_net.inference.validate.validate_fold", lambda *_: None)
    monkeypatch.setattr("autosam_net.inference.validate._describe", lambda *_: None)
    options = TrainingOptions(labelled=1, tune="encoder+head:lora", from_head=True, epochs=1, overwrite=True)
    options = replace(options, anyway=True)
    folder, _ = train_and_validate(prepared.dataset, plan, "vit", "0", options, folders)
    assert folder.parent.name == "vit_encoder-lora_from-head_labelled1_seed0"
    head, _ = load_tensors(folder.parents[1] / "vit_labelled1_seed0" / "fold_0" / "model.safetensors")
    stored, _ = load_tensors(folder / "model.safetensors")
    frozen = {name: tensor for name, tensor in stored.items() if name.startswith("head.transformer.norm")}
    assert frozen, "the checkpoint cannot give back a head that was trained before"
    assert all(torch.equal(tensor, head[name.removeprefix("head.")]) for name, tensor in frozen.items())
    tuned = plan.for_configuration("vit", options.tuning)
    load_head(folder / "model.safetensors", tuned, EncoderSource(tuned.encoding, "cpu"))


@pytest.mark.parametrize("minutes", [1e-4, None])
def test_a_head_whose_training_was_cut_short_is_better_trained_to_its_end_than_tuned(
    prepared: Prepared,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    minutes: float | None,
) -> None:
    plan = prepared.plan
    head = replace(plan.configuration("linear"), epochs=3, maximum_epochs=3, iterations=1)
    plan = replace(plan, configurations={"linear": head})
    monkeypatch.setattr("autosam_net.inference.validate.validate_fold", lambda *_: None)
    monkeypatch.setattr("autosam_net.inference.validate._describe", lambda *_: None)
    options = TrainingOptions(
        labelled=1, tune="encoder+head:full", from_head=True, anyway=True, epochs=1, max_minutes=minutes
    )
    train_and_validate(prepared.dataset, plan, "linear", "0", options, folders)
    said = "linear_labelled1_seed0/fold_0: ended after 1 of 3 planned epochs. Time for the rest"
    assert (said in caplog.text) == (minutes is not None)


def test_an_interrupted_tuning_continues_to_the_same_bytes(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(WHOLE, labelled=1)
    folder = train_head(prepared.dataset, prepared.plan, "linear", 0, options, folders)
    undisturbed = (folder / "model.safetensors").read_bytes()
    plain_step = loop.step

    def step_and_signal(state, loss, rate):
        plain_step(state, loss, rate)
        if state.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", step_and_signal)
        with pytest.raises(SystemExit):
            train_head(prepared.dataset, prepared.plan, "linear", 0, replace(options, overwrite=True), folders)
    train_head(prepared.dataset, prepared.plan, "linear", 0, options, folders)
    assert (folder / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("change", "configuration", "options", "message"),
    [
        (with_unet, "unet", TrainingOptions(tune="encoder+head:full"), "unet is trained from scratch"),
        (None, "linear", replace(WHOLE, unlabelled=True), "--unlabelled: teaches a head over the frozen encoder only"),
        (None, "linear", TrainingOptions(from_head=True), "--from-head: goes with --tune"),
        (None, "linear", TrainingOptions(tune="lora"), "--tune lora: "),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_done(
    prepared: Prepared,
    folders: Folders,
    change: Callable[[Plan], Plan] | None,
    configuration: str,
    options: TrainingOptions,
    message: str,
) -> None:
    plan = prepared.plan if change is None else change(prepared.plan)
    with pytest.raises((UsageError, PlanError), match=message):
        train_and_validate(prepared.dataset, plan, configuration, "0", options, folders)
    assert not folders.results.exists()


def test_a_tuning_of_the_plan_needs_no_flag(prepared: Prepared, folders: Folders) -> None:
    own = replace(prepared.plan.configuration("linear"), tuning=Tuning("encoder+head", "full", learning_rate=1e-3))
    plan = replace(prepared.plan, configurations={"mine": own})
    folder = train_head(prepared.dataset, plan, "mine", 0, TrainingOptions(labelled=1), folders)
    assert folder.parent.name == "mine_labelled1_seed0"
    assert json.loads((folder / "run.json").read_text())["iterations"] == own.epochs * own.iterations


def test_the_published_schedule() -> None:
    rates = [poly_rate(iteration, 2000, 1e-3) for iteration in range(2000)]
    assert rates[:200] == [pytest.approx(1e-3 * (step + 1) / 200) for step in range(200)]
    assert rates[1100] == pytest.approx(1e-3 * 0.5**0.9)
    assert 0 < rates[-1] < 1e-5
    short = [poly_rate(iteration, 10, 1.0) for iteration in range(10)]
    assert max(short) == 1.0 and all(math.isfinite(rate) for rate in short)
    assert poly_rate(0, 1, 1.0) == 1.0


def test_below_the_last_blocks_all_is_cached(prepared: Prepared, folders: Folders) -> None:
    plan = planned(prepared.plan, "lite_medsam", None)
    plan = replace(plan, configurations={"linear": replace(plan.configuration("vit"), head="linear")})
    options = TrainingOptions(labelled=1, tune="encoder+head:lora", last_blocks=2, epochs=1)
    folder = train_head(prepared.dataset, plan, "linear", 0, options, folders)
    assert folder.parent.name == "linear_encoder-lora_last2_labelled1_seed0"
    root = prepared.folders.preprocessed / prepared.dataset.name / "embeddings"
    (record,) = {
        record.key.settings: record for _, record in list_entries(root) if record and record.key.tuned_from
    }.values()
    assert record.key.tuned_from == -2 and record.key.encoder == "lite_medsam"
    counts = json.loads((folder / "run.json").read_text())["parameters"]
    assert counts["encoder"]["trained"] == 2 * 2 * 4 * (320 + 320)

    tuned = plan.for_configuration("linear", options.tuning)
    source = EncoderSource(tuned.encoding, "cpu")
    head = load_head(folder / "model.safetensors", tuned, source)
    case = load_case(next(cases_folder(prepared.dataset, prepared.folders).iterdir()))
    probabilities = next(slice_probabilities(case, [head], plan.label_set, source))
    assert probabilities.shape == (CLASSES, 96, 96) and np.isfinite(probabilities).all()
    with pytest.raises(UsageError, match=r"--last-blocks: goes with --tune encoder\+head:lora"):
        train_head(prepared.dataset, plan, "linear", 0, replace(options, tune="encoder+head:full"), folders)


@pytest.mark.parametrize("blocks", [None, (), (0, -1)])
def test_what_is_cached_must_be_known(prepared: Prepared, folders: Folders, blocks: tuple[int, ...] | None) -> None:
    own = replace(
        prepared.plan.configuration("linear"), tuning=Tuning("encoder+head", "lora", blocks=blocks, cached=True)
    )
    plan = replace(prepared.plan, configurations={"mine": own})
    with pytest.raises(PlanError, match=r"mine: tuning: cached: found true, expected false, or updates or adapters"):
        train_head(prepared.dataset, plan, "mine", 0, TrainingOptions(labelled=1), folders)


@pytest.mark.parametrize(
    ("gain", "refused"),
    [
        (
            Gain(6, 0, 0.5, 0.4, 1.0),
            r"on 6 labelled .*, mean Dice 0\.500 of the head, 0\.400 after .*; 0 patients",
        ),
        (Gain(6, 4, 0.5, 0.51, 0.2), r"\(p = 0\.2, Wilcoxon's test\): no more than chance may give\. Keep the head"),
        (Gain(6, 6, 0.5, 0.51, 0.016), None),
    ],
)
def test_a_trial_on_held_out_labels_decides_whether_a_trained_head_is_tuned(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch, gain: Gain, refused: str | None
) -> None:
    runs: list[tuple[Path, tuple[str, ...], tuple[str, ...]]] = []

    def validate_fold(dataset, plan, folder, cases, device, folders):
        record = json.loads((folder / "run.json").read_text())
        runs.append((folder, tuple(record["trained_on"]), cases))
        rows = {(case, "disc"): dict.fromkeys(METRICS, float("from-head" in str(folder))) for case in cases}
        replace_cases(folder / "validation" / CASES_FILE, rows)
        (folder / "validation" / "summary.json").touch()

    def gain_of(before, after, patients):
        assert before.cases == after.cases == runs[1][2] and set(before.cases) <= set(patients)
        assert not before.case_dice.any() and after.case_dice.all()
        return gain

    monkeypatch.setattr("autosam_net.inference.validate.TUNED_PATIENTS", 4)
    monkeypatch.setattr("autosam_net.inference.validate.validate_fold", validate_fold)
    monkeypatch.setattr("autosam_net.inference.validate._describe", lambda *_: None)
    monkeypatch.setattr("autosam_net.inference.validate.measure_gain", gain_of)
    options = replace(WHOLE, from_head=True)
    if refused:
        with pytest.raises(UsageError, match=refused):
            train_and_validate(prepared.dataset, prepared.plan, "linear", "0", options, folders)
    else:
        train_and_validate(prepared.dataset, prepared.plan, "linear", "0", options, folders)
    split = training_split(prepared.dataset, "0", options, folders)
    head, *trial = runs[:3]
    assert head[0].parents[2].name == "results" and head[1:] == (split.train, split.val)
    for folder, trained, held_out in trial:
        assert folder.parents[2].name == "trials"
        assert set(trained) | set(held_out) == set(split.train) and not set(trained) & set(held_out)
    assert [(trained, held_out) for _, trained, held_out in runs[3:]] == [(split.train, split.val)] * (refused is None)


def test_the_head_of_a_trial_is_trained_for_as_long_as_the_head(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(options: TrainingOptions) -> None:
        train_and_validate(prepared.dataset, prepared.plan, "linear", "0", options, folders)

    def lengths() -> dict[str, int]:
        trials = folders.results.glob("*/trials/*/*/fold_0/run.json")
        return {record.parents[1].name: json.loads(record.read_text())["epochs"] for record in trials}

    monkeypatch.setattr("autosam_net.inference.validate.TUNED_PATIENTS", 4)
    tuning = replace(WHOLE, from_head=True, epochs=None, max_minutes=1e-4)
    train(TrainingOptions(epochs=3))
    with pytest.raises(UsageError, match="no more than chance may give"):
        train(tuning)
    assert lengths() == {"linear": 3, "linear_encoder-full_from-head": 1}

    train(TrainingOptions(epochs=2, overwrite=True))
    with pytest.raises(PlanError, match=r"trials.*linear/fold_0: this fold was trained before\..*--overwrite"):
        train(tuning)
    with pytest.raises(UsageError, match="no more than chance may give"):
        train(replace(tuning, overwrite=True))
    assert lengths() == {"linear": 2, "linear_encoder-full_from-head": 1}
