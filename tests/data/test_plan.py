from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Plan, load_plan
from autosam_net.errors import PlanError
from autosam_net.jsonio import from_json, to_json, write_json
from tests.support import tiny_plan, with_unet


@pytest.fixture
def plan(tmp_path) -> Plan:
    from autosam_net.data.labels import LabelSet

    spec = DatasetSpec("Dataset001_Made", tmp_path, ("MRI",), LabelSet({"background": 0, "organ": 1}), ".nii.gz", 5)
    return with_unet(tiny_plan(spec, tmp_path / "tiny.pth"))


def test_a_plan_survives_its_file(plan: Plan) -> None:
    assert from_json(Plan, to_json(plan), "plan.json") == plan
    assert to_json(plan)["configurations"]["unet"]["encoder"] == "image"


def test_configurations_on_the_plans_encoder_follow_the_plan_as_it_is(plan: Plan) -> None:
    assert plan.for_configuration("cnn") == plan


def test_an_encoder_of_its_own_replaces_the_plans_and_nothing_else(plan: Plan) -> None:
    own = plan.for_configuration("unet")
    assert own.encoding == replace(plan.encoding, encoder="image", weights=None, pixels=False)
    assert own.encoding.views_for(10) == plan.encoding.views_for(10)
    assert own.configurations == {"unet": plan.configuration("unet")}
    assert own.for_configuration("unet") == own
    assert replace(own, encoding=plan.encoding, configurations=plan.configurations) == plan


def test_a_head_sees_more_than_the_plain_view_where_it_predicts_in_several_poses(plan: Plan) -> None:
    plain = replace(plan.encoding, maximum_views=12, slice_budget=100, poses=())
    assert [plain.views_for(slices) for slices in (5, 20, 80, 200)] == [12, 5, 1, 1]
    turned = replace(plain, poses=("turn_90",))
    assert [turned.views_for(slices) for slices in (5, 20, 80, 200)] == [12, 5, 2, 2]


def test_an_unknown_configuration_is_refused(plan: Plan) -> None:
    with pytest.raises(PlanError, match="no configuration 'uent'; did you mean 'unet'"):
        plan.for_configuration("uent")


def test_a_class_that_does_not_exist_keeps_no_component(plan: Plan) -> None:
    assert replace(plan, keep_largest=("organ",)).largest_only() == plan.largest_only(["organ"]) == ((1,),)
    assert replace(plan, keep_largest=("foreground", "organ")).largest_only()[1:] == ((1,),)
    with pytest.raises(PlanError, match="keep_largest: no class 'orgna'; did you mean 'organ'"):
        replace(plan, keep_largest=("orgna",)).largest_only()


def test_another_version_is_named_before_its_other_structure(plan: Plan, tmp_path: Path) -> None:
    content = to_json(plan)
    write_json(tmp_path / "plan.json", content)
    assert load_plan(tmp_path / "plan.json") == plan
    del content["keep_largest"]
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(PlanError, match="key 'keep_largest' is missing"):
        load_plan(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", content | {"version": 1})
    with pytest.raises(PlanError, match=r"plan of version 1, expected 4\. Plan again with --replan"):
        load_plan(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", [])
    with pytest.raises(PlanError, match="expected an object"):
        load_plan(tmp_path / "plan.json")
