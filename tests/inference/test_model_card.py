"""The card beside a model says what its files say."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from autosam_net.inference.model_card import write_model_card
from autosam_net.inference.validate import train_and_validate
from autosam_net.paths import Folders
from autosam_net.training.run import ModelFolder, TrainingOptions
from tests.support import TINY, Prepared


@pytest.fixture(scope="module")
def folders(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("cards"))
    for fold, options in (("0", TrainingOptions(epochs=1)), ("all", TrainingOptions(epochs=1, labelled=1, seed=3))):
        train_and_validate(prepared.dataset, prepared.plan, "cnn", fold, options, folders)
    return folders


def card(prepared: Prepared, folders: Folders, name: str) -> str:
    return (folders.results / prepared.dataset.name / name / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_card_has_the_figures_of_the_files(prepared: Prepared, folders: Folders) -> None:
    text = card(prepared, folders, "cnn")
    fold = folders.results / prepared.dataset.name / "cnn" / "fold_0"
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    for key, name in summary["label_names"].items():
        found = re.search(rf"^\| {name} \| ([\d.]+) ± [\d.]+ \|", text, re.MULTILINE)
        assert found is not None and float(found[1]) == pytest.approx(summary["mean"][key]["Dice"], abs=6e-4)
    run = json.loads((fold / "run.json").read_text())
    assert f"| 0 | {len(run['trained_on'])} | {len(run['trained_on'])} | 0 | {len(run['held_out'])} |" in text
    assert f"torch {run['versions']['torch']}" in text
    assert "Too few patients were held out" in text


def test_the_card_names_encoder_weights_and_limits(prepared: Prepared, folders: Folders) -> None:
    text = card(prepared, folders, "cnn")
    assert f"`{TINY}`" in text and re.search(r"sha256 `[0-9a-f]{64}`", text)
    assert "Licence of the weights: not known: weights of one's own" in text
    assert "RV (1), MYO (2), LV (3)" in text and "It is no medical device" in text


def test_a_model_without_held_out_cases_says_that_nothing_is_known(prepared: Prepared, folders: Folders) -> None:
    text = card(prepared, folders, "cnn_labelled1_seed3")
    assert "Nothing is known of how good this model is" in text and "±" not in text
    assert "only 1 patient, drawn with the seed, was used with labels" in text


def test_the_card_is_well_formed(prepared: Prepared, folders: Folders) -> None:
    for name in ("cnn", "cnn_labelled1_seed3"):
        text = card(prepared, folders, name)
        assert "{" not in text and "None" not in text.replace("None: no fold", "")
        assert "\n\n\n" not in text
        for before, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
            assert before.startswith("|") == after.startswith("|") or "" in (before, after), (before, after)


def test_writing_again_writes_the_same(prepared: Prepared, folders: Folders) -> None:
    model = ModelFolder(folders.results / prepared.dataset.name / "cnn")
    before = card(prepared, folders, "cnn")
    write_model_card(model, prepared.dataset, folders)
    assert card(prepared, folders, "cnn") == before
