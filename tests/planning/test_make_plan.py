from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.data.decisions import decisions
from autosam_net.data.fingerprint import CaseFingerprint, Fingerprint
from autosam_net.data.plan import Plan
from autosam_net.jsonio import dumps, from_json, to_json
from planning.make_plan import choose_inputs, make_plan
from tests.planning.figures import case, dataset, fingerprint, machine, probe

SIZES = st.integers(8, 400)
STEPS = st.floats(0.3, 12.0)
CASES = st.lists(
    st.tuples(st.tuples(SIZES, SIZES, SIZES), st.tuples(STEPS, STEPS, STEPS), STEPS), min_size=5, max_size=8
)


def cases_of(drawn: list[tuple]) -> list[CaseFingerprint]:
    return [
        case(f"case{index}", shape, spacing, {"organ": 10 * extent})
        for index, (shape, spacing, extent) in enumerate(drawn)
    ]


def plan_of(figures: Fingerprint, **changes: object) -> Plan:
    return make_plan(dataset(), figures, probe(), **changes)


@given(drawn=CASES, order=st.randoms())
def test_the_order_of_cases_does_not_matter(drawn: list[tuple], order: object) -> None:
    cases = cases_of(drawn)
    shuffled = list(cases)
    order.shuffle(shuffled)
    assert dumps(plan_of(fingerprint(*cases))) == dumps(plan_of(fingerprint(*shuffled)))


@given(drawn=CASES)
def test_every_plan_is_whole_and_every_reason_has_figures(drawn: list[tuple]) -> None:
    plan = plan_of(fingerprint(*cases_of(drawn)))
    assert set(plan.reasons) == set(decisions(plan))
    for reason in plan.reasons.values():
        assert any(character.isdigit() for character in reason)
        assert "\n" not in reason
    assert from_json(Plan, to_json(plan), "plan") == plan
    assert {"preprocess", "encode", "predict", "train:cnn", "train:linear", "train:unet"} == set(plan.estimates)


def test_a_network_from_scratch_is_planned_on_the_slices_with_the_same_views() -> None:
    plan = plan_of(fingerprint())
    assert {name: entry.encoder for name, entry in plan.configurations.items()} == {
        "cnn": None,
        "linear": None,
        "unet": "image",
    }
    assert "trained from scratch" in plan.reasons["head unet"]
    assert "on image" in decisions(plan)["head unet"]
    own = plan.for_configuration("unet").encoding
    assert replace(own, encoder=plan.encoding.encoder, pixels=True) == plan.encoding


def test_the_same_figures_give_the_same_plan() -> None:
    assert dumps(plan_of(fingerprint())) == dumps(plan_of(fingerprint()))


def test_noise_of_the_probe_changes_nothing() -> None:
    one, two = (make_plan(dataset(), fingerprint(), probe(seconds=seconds)) for seconds in (0.5001, 0.4999))
    assert dumps(one) == dumps(two)


def test_what_the_user_asks_for_is_planned(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pth"
    plan = plan_of(fingerprint(), encoder="vit_b", weights=weights)
    assert (plan.encoding.encoder, plan.encoding.input_size) == ("vit_b", 512)
    assert plan.encoding.weights_file == weights
    assert "mine.pth" in plan.reasons["encoder"]


def test_the_probed_input_is_the_planned_one() -> None:
    preprocessing, encoding, _ = choose_inputs(dataset(), fingerprint(), machine(), None, None)
    plan = plan_of(fingerprint())
    later = {"maximum_views": 1, "slice_budget": 1, "poses": ()}  # hang on its speed and the size of its embeddings
    assert (plan.preprocessing, replace(plan.encoding, **later)) == (preprocessing, encoding)


def test_labels_keep_their_order() -> None:
    plan = plan_of(fingerprint())
    assert list(plan.labels) == list(dataset().labels.values)


@pytest.mark.parametrize(
    ("groups", "pattern"),
    [
        ({"patient1_a": "patient1", "patient1_b": "patient1", "patient2_a": "patient2"}, True),
        ({"patient1_a": "x", "patient1_b": "y", "patient2_a": "x"}, False),
        ({"a": "a", "b": "b", "c": "c"}, False),
    ],
)
def test_the_group_pattern_is_named_where_one_made_the_groups(groups: dict[str, str], pattern: bool) -> None:
    figures = fingerprint(*(case(name) for name in groups), groups=groups)
    assert (plan_of(figures).group_pattern is not None) == pattern
