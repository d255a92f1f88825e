"""The choice on disk: best.json, its reasons, the instructions, and models that use it or have changed since."""

from __future__ import annotations

import shlex
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.errors import ModelError
from autosam_net.evaluation import selection
from autosam_net.evaluation.postprocessing import keep_largest
from autosam_net.imageio import read_label
from autosam_net.inference.best import Best, read_best
from autosam_net.inference.find_best import find_best_configuration, instructions
from autosam_net.inference.load import load_model
from autosam_net.inference.segment import segment
from autosam_net.jsonio import write_json
from autosam_net.paths import Folders
from autosam_net.training.checkpoint import load_tensors, save_tensors
from tests.support import Prepared


@pytest.fixture
def best(prepared: Prepared, changeable: Folders, monkeypatch: pytest.MonkeyPatch) -> Best:
    """Return the choice where any pair and any post-processing gains enough."""
    monkeypatch.setattr(selection, "PAIR_MARGIN", -2.0)
    monkeypatch.setattr(selection, "COMPONENT_MARGIN", -2.0)
    return find_best_configuration(prepared.dataset, folders=changeable)


def test_the_choice_is_written_with_figures_and_reasons(prepared: Prepared, changeable: Folders, best: Best) -> None:
    assert read_best(changeable.results / prepared.dataset.name) == best
    assert best.choice.configurations == ("linear", "cnn")
    classes = tuple(prepared.dataset.labels.targets)
    assert best.choice.keep_largest == classes
    assert best.folds == ("0", "1") and best.cases == 3
    assert list(best.candidates) == ["linear", "cnn", "linear + cnn"]
    assert best.missing_folds == {"linear": ("2", "3", "4"), "cnn": ("2", "3", "4")}
    assert best.nested is not None
    assert [part.cases for part in best.nested.parts] == ["fold 0", "fold 1"]
    assert list(best.reasons) == ["configurations", *(f"keep_largest.{name}" for name in classes), "nested"]
    assert all(reason.endswith(".") for reason in best.reasons.values())
    assert best.description == f"linear + cnn, folds 0 1, only the largest component of {', '.join(classes)}"


def test_with_the_real_margins_reasons_say_what_was_decided(prepared: Prepared, changeable: Folders) -> None:
    best = find_best_configuration(prepared.dataset, ["linear"], ["0"], folders=changeable)
    assert best.choice.configurations == ("linear",)
    assert "there is no pair to compare it with" in best.reasons["configurations"]
    assert best.nested is not None
    assert "first half of the patients" in best.reasons["nested"]
    for name in prepared.dataset.labels.targets:
        said = "only that is kept" if name in best.choice.keep_largest else "every component is kept"
        assert said in best.reasons[f"keep_largest.{name}"]


def test_the_instructions_are_commands_that_parse(
    prepared: Prepared, changeable: Folders, best: Best, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (changeable.results / prepared.dataset.name / "inference_instructions.txt").read_text()
    assert text == instructions(best, prepared.plan, changeable)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("    autosam_")]
    assert ["autosam_train", "900", "cnn", "2"] in commands
    assert ["autosam_find_best_configuration", "900", "-c", "linear", "cnn"] in commands
    whole, plain = ([*words] for script, *words in commands if script == "autosam_predict")
    assert "-c" not in whole and "--disable_postprocessing" in plain
    for script, *words in commands:
        module = import_module(f"autosam_net.commands.{script.removeprefix('autosam_')}")
        monkeypatch.setattr(module, "run", lambda _, parser, argv: parser.parse_args(argv))
        module.main(words)
    assert "nested estimate, judged on other cases" in text


def test_the_instructions_name_the_classes_that_the_plan_keeps_in_one_piece(
    prepared: Prepared, changeable: Folders, best: Best
) -> None:
    said = "in all candidates, by the plan: only the largest component of RV, LV\n"
    assert said in instructions(best, replace(prepared.plan, keep_largest=("RV", "LV")), changeable)
    assert "by the plan" not in instructions(best, prepared.plan, changeable)


def test_instructions_for_runs_that_are_not_the_plans_own(prepared: Prepared, changeable: Folders) -> None:
    best = find_best_configuration(prepared.dataset, ["cnn_labelled1_seed0"], folders=changeable)
    text = instructions(best, prepared.plan, replace(changeable, raw=changeable.results.parent / "raw"))
    assert "    cnn_labelled1_seed0: 1 2 3 4\n" in text
    assert "autosam_train" not in text
    complete = replace(best, missing_folds={}, nested=None)
    assert "All folds are trained." in instructions(complete, prepared.plan, changeable)


def test_a_root_that_the_environment_does_not_name_is_in_the_commands(
    prepared: Prepared, trained: Folders, best: Best
) -> None:
    assert "--root" not in instructions(best, prepared.plan, trained)
    text = instructions(best, prepared.plan, prepared.folders)
    assert f"-i INPUT -o OUTPUT --root {prepared.root}\n" in text


def test_models_follow_the_choice_unless_told_otherwise(prepared: Prepared, changeable: Folders, best: Best) -> None:
    model = load_model(900, folders=changeable)
    assert len(model.heads) == 4 and model.largest_only == model.plan.largest_only(best.choice.keep_largest)
    assert len(load_model(900, folds=["1"], folders=changeable).heads) == 2
    named = load_model(900, ["linear", "cnn"], folders=changeable)
    assert len(named.heads) == 4 and named.largest_only == ()
    file = training_cases(prepared.dataset)[0].images[0]
    plain, finished = (segment(file, one).labels for one in (named, model))
    np.testing.assert_array_equal(finished, keep_largest(plain, [[1], [2], [3]]))
    np.testing.assert_array_equal(segment(file, model.without_postprocessing()).labels, plain)


def test_files_are_post_processed_as_arrays_are(prepared: Prepared, changeable: Folders, best: Best) -> None:
    model = load_model(900, folders=changeable)
    file = training_cases(prepared.dataset)[0].images[0]
    (written,) = model.predict_folder(file, changeable.results.parent / "out", save_probabilities=True)
    np.testing.assert_array_equal(read_label(written).array[0], segment(file, model).labels)


def test_a_choice_of_other_models_is_refused(prepared: Prepared, changeable: Folders, best: Best) -> None:
    file = changeable.results / prepared.dataset.name / "cnn" / "fold_1" / "model.safetensors"
    tensors, metadata = load_tensors(file)
    save_tensors(file, {name: tensor + 1 for name, tensor in tensors.items()}, metadata)
    file.with_name("run.json").unlink()  # it tells of the head that was there
    expected = (
        r"best\.json: out of date, cnn/fold_1 was trained again since\. "
        r"Run autosam_find_best_configuration 900 again, or choose with -c\."
    )
    with pytest.raises(ModelError, match=expected):
        load_model(900, folders=changeable)
    assert len(load_model(900, ["cnn"], folders=changeable).heads) == 2
    file.unlink()
    with pytest.raises(ModelError, match="cnn/fold_1 was removed since"):
        load_model(900, folders=changeable)


def test_a_changed_plan_is_refused_but_not_moved_weights(prepared: Prepared, changeable: Folders, best: Best) -> None:
    folder = changeable.results / prepared.dataset.name
    moved = replace(prepared.plan.encoding, weights="/elsewhere/tiny.pth")
    write_json(folder / "linear" / "plan.json", replace(prepared.plan, encoding=moved))
    assert read_best(folder) == best
    flipped = replace(prepared.plan.encoding, poses=("flip_x",))
    write_json(folder / "linear" / "plan.json", replace(prepared.plan, encoding=flipped))
    with pytest.raises(ModelError, match="out of date, the plan of linear was changed since"):
        read_best(folder)


def test_a_model_that_was_not_chosen_may_go(prepared: Prepared, changeable: Folders, best: Best) -> None:
    folder = changeable.results / prepared.dataset.name
    write_json(folder / "best.json", replace(best, choice=replace(best.choice, configurations=("linear",))))
    (folder / "cnn" / "fold_0" / "model.safetensors").unlink()
    assert read_best(folder) is not None


def test_a_damaged_file_names_the_cure(prepared: Prepared, changeable: Folders) -> None:
    folder = changeable.results / prepared.dataset.name
    assert read_best(folder) is None
    (folder / "best.json").write_text("{}")
    with pytest.raises(ModelError, match=r"best\.json: .*Run autosam_find_best_configuration 900 again"):
        read_best(folder)
