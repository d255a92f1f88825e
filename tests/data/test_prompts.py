"""The settings of prompts, and the file that users write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosam_net.data.prompts import Outline, Prompt, PromptOptions, read_prompts, write_prompts
from autosam_net.errors import PlanError

PROMPTS = [
    Prompt(case="a", slice=3, label="wall", box=(1.5, 2, 30, 40), hole=Outline(box=(5, 6, 7, 8))),
    Prompt(case="a", slice=3, label="cavity", foreground=((6, 7),), background=((1, 2), (3, 4))),
    Prompt(case="b", slice=0, label="wall", box=(1, 2, 3, 4), foreground=((2, 3),)),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "point", "points": 0}, "points 0: give a number above 0"),
        ({"kind": "box", "points": 2}, "points 2 goes with point or both"),
        ({"kind": "box", "jitter": -1}, "jitter -1: give 0 or a number of pixels above it"),
        ({"kind": "box", "training_jitter": -1}, "training_jitter -1: give 0"),
        ({"kind": "point", "jitter": 3}, "jitter 3 goes with box or both"),
    ],
)
def test_options_that_contradict_each_other_are_told(words: dict[str, Any], message: str) -> None:
    problem = PromptOptions(**words).problem
    assert problem is not None and problem.startswith(message)


def test_another_kind_drops_what_it_has_no_use_for() -> None:
    options = PromptOptions("both", points=3, jitter=2, seed=1)
    assert options.of_kind("box") == PromptOptions("box", jitter=2, seed=1)
    assert options.of_kind("point") == PromptOptions("point", points=3, seed=1)
    assert all(options.of_kind(kind).problem is None for kind in ("box", "point", "both"))


def test_training_moves_boxes_that_validation_does_not() -> None:
    assert PromptOptions("box").in_training.jitter == 5
    assert PromptOptions("box", jitter=7).in_training.jitter == 7
    assert PromptOptions("point").in_training == PromptOptions("point")


def test_every_way_of_prompting_has_a_name_and_words_of_its_own() -> None:
    assert PromptOptions("box").run_name == "box"
    assert PromptOptions("box", jitter=5, holes=True).run_name == "box_jitter5_holes"
    assert PromptOptions("point", points=3, seed=1).run_name == "point_points3_seed1"
    assert PromptOptions("both").in_words == "box and point prompts"
    assert PromptOptions("box", jitter=5, holes=True).in_words == "box prompts, jitter 5, holes apart"
    assert PromptOptions("point", points=3).in_words == "3 point prompts"


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.json", PROMPTS)
    assert read_prompts(tmp_path / "prompts.json", ["wall", "cavity"]) == {"a": PROMPTS[:2], "b": PROMPTS[2:]}
    assert "null" not in (tmp_path / "prompts.json").read_text()


def good() -> dict[str, Any]:
    return {"case": "a", "slice": 1, "label": "wall", "box": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "wal"}, r"prompts: \[0\]: no class 'wal'; did you mean 'wall'"),
        ({"bx": 1}, r"prompts: \[0\]: unknown key 'bx'; did you mean 'box'"),
        ({"box": [1, 2, 3]}, r"prompts: \[0\]: box: expected a list of 4"),
        ({"box": [3, 2, 1, 4]}, r"box \[3, 2, 1, 4\]: give first column and row, then last column and row"),
        ({"slice": 1.5}, r"slice: expected a whole number, found 1.5"),
        ({"box": None, "background": [[1, 2]]}, "wall in slice 1 of a has neither a box nor a foreground point"),
        ({"hole": {"background": [[1, 2]]}}, "has neither a box nor a foreground point"),
        ({"foreground": [[1, 2, 3]]}, r"foreground: \[0\]: expected a list of 2"),
        ({"case": 3}, "case: expected a text"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"version": 1, "prompts": [good() | change]}))
    with pytest.raises(PlanError, match=message) as raised:
        read_prompts(file, ["wall", "cavity"])
    assert str(raised.value).startswith(str(file)) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 1, "prompts": [good(), good()]}, r"prompts: \[1\]: wall in slice 1 of a has a prompt already"),
        ({"version": 2, "boxes": []}, "prompts of version 2, expected 1"),
        ({"prompts": []}, "key 'version' is missing"),
        ([], "expected an object"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(content))
    with pytest.raises(PlanError, match=message):
        read_prompts(tmp_path / "prompts.json", ["wall"])
