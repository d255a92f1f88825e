"""A head that needs prompts: trained, validated, stored, loaded and predicted with like any other, and kept apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autosam_net.commands.predict import main as predict
from autosam_net.commands.train import main as train
from autosam_net.commands.zero_shot import main as zero_shot
from autosam_net.data.dataset import training_cases
from autosam_net.data.prompts import PromptOptions, read_prompts
from autosam_net.errors import ModelError, UsageError
from autosam_net.imageio import read_label
from autosam_net.inference.choose import load_chosen_models, models_of
from autosam_net.inference.compare import plan_comparison
from autosam_net.inference.load import load_model
from autosam_net.inference.onnx_graph import export_onnx
from autosam_net.inference.package import export_model
from autosam_net.inference.segment import segment
from autosam_net.inference.validate import train_and_validate
from autosam_net.jsonio import read_sealed, write_json
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.run import TrainingOptions
from tests.support import Prepared, with_small_sam


@pytest.fixture(scope="module")
def monkeypatched() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def place(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, monkeypatched: pytest.MonkeyPatch) -> Prepared:
    """Return a root with fold 0 of `prompted` trained by the command, and of `linear`."""
    place = with_small_sam(prepared, tmp_path_factory.mktemp("prompted"), monkeypatched)
    for name in ("prompted", "linear"):
        assert train(["900", name, "0", "--root", str(place.root), "--device", "cpu"]) == 0
    return place


def results(place: Prepared) -> Path:
    return place.folders.results / place.dataset.name


def held_out(place: Prepared) -> list[str]:
    return list(read_sealed(results(place) / "prompted" / "fold_0" / "run.json")["held_out"])


def images_of(place: Prepared, names: list[str]) -> list[str]:
    return [str(case.images[0]) for case in training_cases(place.dataset) if case.name in names]


def call(place: Prepared, out: Path, *words: str) -> int:
    images = images_of(place, held_out(place))
    return predict(["-i", *images, "-o", str(out), "--root", str(place.root), "--device", "cpu", *words])


def test_it_is_validated_with_prompts_and_says_so(place: Prepared) -> None:
    folder = results(place) / "prompted"
    summary = read_sealed(folder / "fold_0" / "validation" / "summary.json")
    assert summary["prompts"] == "box prompts, from the reference"
    assert summary["number_of_cases"] == len(held_out(place))
    assert "prompts" not in read_sealed(results(place) / "linear" / "fold_0" / "validation" / "summary.json")
    card = (folder / "MODEL_CARD.md").read_text()
    assert "**Needs prompts**" in card and "upper bound" in card
    assert json.loads((folder / "plan.json").read_text())["prompts"]["kind"] == "box"


def test_only_what_has_learnt_is_stored(place: Prepared) -> None:
    tensors, metadata = load_tensors(results(place) / "prompted" / "fold_0" / "model.safetensors")
    assert metadata["head"] == "prompted"
    assert not any("point_embeddings" in name or "mask_downscaling" in name for name in tensors)
    assert any(tensors["classes"].any(1).tolist())


def test_the_prompts_of_the_validation_predict_it_again(place: Prepared, tmp_path: Path) -> None:
    validation = results(place) / "prompted" / "fold_0" / "validation"
    file = validation / "prompts.json"
    assert call(place, tmp_path, "-c", "prompted", "--prompts", str(file)) == 0
    for name in held_out(place):
        found, expected = (read_label(folder / f"{name}.nii.gz").array for folder in (tmp_path, validation))
        assert (found == expected).mean() > 0.97, (found == expected).mean()  # cached in 16 bits, random weights
    record = read_sealed(tmp_path / "run.json")
    assert record["prompts"] == str(file) and len(record["prompts_sha256"]) == 64


def test_zero_shot_predicts_with_prompts_too(place: Prepared, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    words = ["900", "--prompt", "box", "--root", str(place.root), "--device", "cpu"]
    assert zero_shot([*words, "--write-prompts", str(file)]) == 0
    assert set(read_prompts(file, place.plan.label_set.targets)) == set(held_out(place))
    assert not (results(place) / "zero_shot_box").exists()
    assert zero_shot(words) == 0
    assert call(place, tmp_path / "out", "-d", "900", "--zero-shot", "--prompts", str(file)) == 0
    for name in held_out(place):
        expected = read_label(results(place) / "zero_shot_box" / "fold_0" / "validation" / f"{name}.nii.gz").array
        found = read_label(tmp_path / "out" / f"{name}.nii.gz").array
        assert (found == expected).mean() > 0.97, (found == expected).mean()  # cached in 16 bits, random weights


def test_an_image_in_memory_takes_prompts(place: Prepared) -> None:
    model, name = load_model(results(place) / "prompted", device="cpu"), held_out(place)[0]
    prompts = read_prompts(results(place) / "prompted/fold_0/validation/prompts.json", model.plan.label_set.targets)
    found = segment(images_of(place, [name])[0], model, prompts=prompts[name][:1])
    assert set(np.unique(found.labels)) <= {0, *model.plan.label_set.targets[prompts[name][0].label]}
    with pytest.raises(ModelError, match="prompted fold_0: needs prompts"):
        segment(images_of(place, [name])[0], model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "prompted"], "prompted fold_0: needs prompts. Give them with --prompts prompts.json."),
        (["-c", "linear", "--prompts", "FILE"], "linear fold_0: takes no prompts. Leave them out"),
        (["-c", "prompted", "linear", "--prompts", "FILE"], "needs prompts; predict with each alone."),
        (["-c", "prompted", "--prompts", "nowhere.json"], "nowhere.json: no such file"),
        (["-c", "prompted", "--prompts", "STRANGER"], "no case 'stranger' among the inputs"),
        (["-c", "prompted", "--prompts", "NONE"], "no prompt for patient"),
        (["--zero-shot", "--prompts", "FILE"], "--zero-shot: goes with -d"),
        (["--zero-shot", "-d", "900", "-c", "prompted", "--prompts", "FILE"], "so that -c names nothing"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    place: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = results(place) / "prompted" / "fold_0" / "validation" / "prompts.json"
    content = json.loads(file.read_text())
    content["prompts"][0]["case"] = "stranger"
    (tmp_path / "stranger.json").write_text(json.dumps(content))
    (tmp_path / "none.json").write_text(json.dumps({**content, "prompts": []}))
    named = {"FILE": str(file), "STRANGER": str(tmp_path / "stranger.json"), "NONE": str(tmp_path / "none.json")}
    assert call(place, tmp_path / "out", *(named.get(word, word) for word in words)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "/case" not in line and "case/s" not in line]
    assert len(lines) == 1 and message in lines[0]
    assert not list(tmp_path.glob("out/*"))


def test_it_is_compared_with_no_other_head(place: Prepared) -> None:
    with pytest.raises(ModelError, match=r"prompted: needs prompts, so that it predicts with no other head"):
        plan_comparison(place.dataset, ["prompted", "linear"], None, place.folders)
    chosen = plan_comparison(place.dataset, None, None, place.folders)
    assert [model.path.name for model in chosen.models] == ["linear"]


def test_it_is_handed_on_with_its_need_of_prompts(place: Prepared, tmp_path: Path) -> None:
    export_model(900, tmp_path / "model.zip", ["prompted"], folders=place.folders)
    model = load_model(tmp_path / "model.zip", device="cpu", weights=place.root / "sam.pth")
    assert model.plan.prompts == PromptOptions("box")
    with pytest.raises(ModelError, match=r"--onnx: .* needs prompts"):
        export_onnx(model, tmp_path / "model.onnx")


def test_a_plan_that_denies_its_prompts_is_refused(place: Prepared, tmp_path: Path) -> None:
    (tmp_path / "prompted").mkdir()
    for part in ("plan.json", "fold_0"):
        (tmp_path / "prompted" / part).symlink_to(results(place) / "prompted" / part)
    plan = load_model(results(place) / "prompted", device="cpu").plan
    (tmp_path / "prompted" / "plan.json").unlink()
    write_json(tmp_path / "prompted" / "plan.json", replace(plan, prompts=None))
    with pytest.raises(ModelError, match="says otherwise whether it needs prompts"):
        load_model(tmp_path / "prompted", device="cpu")


def test_other_kinds_have_folders_of_their_own_and_can_be_tuned_with_the_encoder(place: Prepared) -> None:
    options = TrainingOptions(prompts="both", tune="head:lora", from_head=True, epochs=1)
    assert options.run_name("prompted") == "prompted_both_head-lora_from-head"
    folder, summary = train_and_validate(place.dataset, place.plan, "prompted", "0", options, place.folders)
    assert summary is not None and summary.prompts == "box and point prompts, from the reference"
    before, after = (
        load_tensors(results(place) / name / "fold_0" / "model.safetensors")[0]
        for name in ("prompted_both", folder.parent.name)
    )
    name = "mask_decoder.transformer.layers.0.self_attn.q_proj."
    assert torch.equal(before[name + "weight"], after[name + "parametrizations.weight.original"])
    models = [model for model in models_of(900, place.folders) if model.path.name == "prompted_both"]
    assert load_chosen_models(models, None, None, "cpu", "here").plan.prompts == PromptOptions("both")


@pytest.mark.parametrize(
    ("configuration", "options", "message"),
    [
        ("linear", {"prompts": "box"}, "--prompts box: the head linear takes no prompts"),
        ("prompted", {"prompts": "boxes"}, "--prompts boxes: did you mean 'box'"),
        ("prompted", {"unlabelled": True}, "--unlabelled: nobody prompts what has no labels"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(
    place: Prepared, configuration: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_and_validate(place.dataset, place.plan, configuration, "0", TrainingOptions(**options), place.folders)
