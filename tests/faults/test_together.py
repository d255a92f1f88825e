"""Two commands at once on the same data: both are right, or the second waits or refuses."""

from __future__ import annotations

import pytest

from autosam_net.files import alone
from tests.faults.conftest import Stages
from tests.faults.stages import MAIN, NAME, Outcome, content, finish, run, start

PREDICT = MAIN["predict"][1]


def at_once(
    stages: Stages, stage: str, name: str, *commands: tuple[str, str]
) -> tuple[dict[str, bytes], list[Outcome]]:
    """Return what is there after commands, given as stage and words, that were started at once; and the outcomes."""
    root = stages.again(stage, name)
    processes = [start(root, command, words=words) for command, words in commands]
    outcomes = [finish(root, process) for process in processes]
    assert not list(root.rglob(".writing-*")) and not list(root.rglob("*.lock"))
    return content(root), outcomes


@pytest.mark.parametrize("stage", ["preprocess", "encode", "predict", "export"])
def test_the_same_command_twice(stages: Stages, stage: str) -> None:
    found, outcomes = at_once(stages, stage, f"twice_{stage}", *[(stage, MAIN[stage][1])] * 2)
    assert found == stages.after[stage]
    refused = [outcome for outcome in outcomes if outcome.code]
    assert all(stage == "export" and "exists already" in outcome.said for outcome in refused), refused


@pytest.mark.parametrize(
    ("stage", "reason"), [("convert", "exists. Give --overwrite"), ("train", "another process is")]
)
def test_the_second_of_two_waits_or_refuses(stages: Stages, stage: str, reason: str) -> None:
    found, outcomes = at_once(stages, stage, f"second_{stage}", *[(stage, MAIN[stage][1])] * 2)
    assert found == stages.after[stage]
    codes = sorted(outcome.code for outcome in outcomes)
    assert codes in ([0, 0], [0, 2])
    assert all(reason in outcome.said for outcome in outcomes if outcome.code)


def test_a_fold_that_is_being_trained_is_refused(stages: Stages) -> None:
    root = stages.again("train", "trained_already")
    before = content(root)
    with alone(root / "results" / NAME / "cnn" / "fold_0"):
        outcome = run(root, "train")
    assert outcome.code == 2 and len(outcome.lines) == 1
    assert "fold_0: another process is training this fold. Wait until it has finished." in outcome.lines[0]
    assert content(root) == before


def test_halves_of_the_cases_into_one_folder(stages: Stages) -> None:
    images = sorted((stages.before["predict"] / "in").iterdir())
    halves = [("predict", PREDICT.replace("-i in", f"-i in/{image.name}")) for image in images]
    found, outcomes = at_once(stages, "predict", "halves", *halves)
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert found == stages.after["predict"]


def test_training_beside_prediction(stages: Stages) -> None:
    commands = [("train", "27 cnn 1 --device cpu"), ("predict", f"{PREDICT} -f 0")]
    found, outcomes = at_once(stages, "predict", "beside", *commands)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    for name, expected in stages.after["predict"].items():
        assert name.endswith(("MODEL_CARD.md", "cases.csv")) or found[name] == expected, name


def test_two_folds_of_one_model(stages: Stages) -> None:
    commands = [("train", f"27 cnn {fold} --device cpu") for fold in (0, 1)]
    found, outcomes = at_once(stages, "train", "folds", *commands)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    card = found[f"results/{NAME}/cnn/MODEL_CARD.md"].decode()
    assert all(f"results/{NAME}/cnn/fold_{fold}/model.safetensors" in found for fold in (0, 1))
    assert "| 0 |" in card and "| 1 |" in card


def test_preprocessing_beside_training(stages: Stages) -> None:
    commands = [(stage, MAIN[stage][1]) for stage in ("train", "preprocess")]
    found, outcomes = at_once(stages, "train", "preprocessing", *commands)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert found == stages.after["train"]
