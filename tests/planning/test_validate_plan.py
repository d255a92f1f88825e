from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from autosam_net.data.plan import Plan
from autosam_net.errors import PlanError
from autosam_net.jsonio import from_json, to_json
from planning.make_plan import make_plan
from planning.validate_plan import validate_plan
from tests.planning.figures import dataset, fingerprint, probe

CONTENT: dict[str, Any] = to_json(make_plan(dataset(), fingerprint(), probe()))
for _configuration in CONTENT["configurations"].values():
    _configuration["settings"] = {}

WHOLE = {"part": "encoder+head", "method": "full"}

EDITS: list[tuple[str, Any, str]] = [
    ("dataset", "Dataset002_Other", "dataset: found Dataset002_Other, but dataset.json says Dataset001_Made"),
    ("channel_names", ["CT"], "channel_names: found"),
    ("labels", {"background": 0, "tumour": 1}, "labels: found"),
    ("file_ending", ".png", "file_ending: found .png"),
    ("keep_largest", ["organs"], "keep_largest: 'organs' is not known; did you mean 'organ'"),
    ("folds", 1, "folds: found 1, expected 2 or more"),
    ("group_pattern", "(", "group_pattern '\\(' is no regular expression"),
    ("configurations", {}, "configurations: found {}, expected at least one"),
    ("preprocessing/slice_axis", 3, "slice_axis: found 3, expected 0, 1 or 2"),
    ("preprocessing/spacing", 0.0, "spacing: found 0.0, expected a number above 0"),
    ("preprocessing/normalizations", [], "normalizations: found 0 entries, expected 1"),
    ("preprocessing/normalizations/0/name", "percentil", "'percentil' is not known; did you mean 'percentile'"),
    ("preprocessing/normalizations/0/upper", 101.0, "lower 0.5, upper 101, expected percentages"),
    ("preprocessing/normalizations/0", {"name": "ct", "lower": 9.0, "upper": 2.0}, "expected lower below upper"),
    ("encoding/encoder", "lite_medsan", "encoder: 'lite_medsan' is not known; did you mean 'lite_medsam'"),
    ("encoding/input_size", 200, "input_size: found 200, expected a multiple of 64 up to 1024 for lite_medsam"),
    ("encoding/input_size", 0, "input_size: found 0"),
    ("encoding/weights", "/nowhere/w.pth", "weights: found /nowhere/w.pth, expected a file that exists, or null"),
    ("encoding/overlap", 0.8, "overlap: found 0.8, expected 0 to 0.75"),
    ("encoding/rgb/1/channel", 1, "rgb: \\[1\\]: channel: found 1, expected 0 to 0"),
    ("encoding/maximum_views", 0, "maximum_views: found 0, expected 1 or more"),
    ("encoding/slice_budget", 0, "slice_budget: found 0, expected 1 or more"),
    ("encoding/poses", ["z"], "poses: found \\['z'\\], expected some of"),
    ("encoding/poses", ["flip_x", "flip_x"], "poses: found"),
    ("encoding/encoder", "image", "encoding: pixels: found true, expected false for an encoder of stride 1"),
    ("encoding/tuned", True, "tuned: found True, expected false; give a configuration a tuning"),
    (
        "configurations/cnn/tuning",
        {"part": "head", "method": "lora"},
        "cnn: tuning: the head cnn has nothing pretrained",
    ),
    ("configurations/unet/tuning", WHOLE, "unet: tuning: the head unet is trained from scratch"),
    ("configurations/cnn/tuning", {**WHOLE, "rank": 0}, "tuning: rank: found 0, expected 1 to 256"),
    ("configurations/cnn/tuning", {**WHOLE, "ratio": 2.0}, "tuning: ratio: found 2.0, expected above 0, up to 1"),
    ("configurations/cnn/tuning", {**WHOLE, "learning_rate": -1.0}, "tuning: learning_rate: found -1.0"),
    ("configurations/cnn/tuning", {**WHOLE, "weight_decay": -1.0}, "tuning: weight_decay: found -1.0"),
    ("configurations/cnn/tuning", {**WHOLE, "method": "lara"}, "method: expected one of 'full', 'lora', 'adapter'"),
    ("configurations/cnn/encoder", "imgae", "cnn: encoder: 'imgae' is not known; did you mean 'image'"),
    ("configurations/cnn/encoder", "image", "cnn: encoder: found image, expected null, or one with weights"),
    ("configurations/unet/encoder", None, "unet: encoder: found None, expected image for the head unet"),
    ("configurations/cnn/head", "cmn", "configurations: cnn: head: 'cmn' is not known"),
    ("configurations/cnn/settings", {"dropuot": 0.1}, "settings: 'dropuot' is not known"),
    ("configurations/cnn/batch_size", 0, "cnn: batch_size: found 0, expected 1 or more"),
    ("configurations/cnn/epochs", 0, "cnn: epochs: found 0"),
    ("configurations/cnn/iterations", -1, "cnn: iterations: found -1"),
    ("configurations/cnn/learning_rate", 0.0, "cnn: learning_rate: found 0.0, expected a number above 0"),
    ("configurations/cnn/weight_decay", -0.1, "cnn: weight_decay: found -0.1, expected 0 or more"),
]


def edited(path: str, value: Any) -> Plan:
    content = copy.deepcopy(CONTENT)
    *way, last = path.split("/")
    place = content
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    plan: Plan = from_json(Plan, content, "plan.json")
    return plan


def test_an_automatic_plan_is_sound() -> None:
    validate_plan(from_json(Plan, CONTENT, "plan.json"), dataset())


@pytest.mark.parametrize(("path", "value", "message"), EDITS, ids=[f"{path}={value}" for path, value, _ in EDITS])
def test_every_wrong_value_is_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        validate_plan(edited(path, value), dataset())
    assert "plan.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("preprocessing/spacing", 0.9),
        ("encoding/encoder", "vit_b"),
        ("encoding/input_size", 320),
        ("encoding/poses", ["flip_y", "turn_90"]),
        ("keep_largest", []),
        ("configurations/linear/epochs", 3),
        ("configurations/linear/encoder", "vit_b"),
    ],
)
def test_sensible_edits_are_accepted(path: str, value: Any) -> None:
    validate_plan(edited(path, value), dataset())


def test_the_order_of_labels_counts() -> None:
    reverse: Callable[[dict[str, Any]], dict[str, Any]] = lambda labels: dict(reversed(labels.items()))  # noqa: E731
    with pytest.raises(PlanError, match="labels"):
        validate_plan(edited("labels", reverse(CONTENT["labels"])), dataset())
