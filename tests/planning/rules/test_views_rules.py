"""Views and poses follow from how patients lie, from time and from the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from autosam_net.data.fingerprint import Fingerprint
from planning.rules.views import SAME_POSE, choose_poses, choose_rotation, choose_views
from tests.planning.figures import (
    ACDC,
    ENCODING,
    ULTRASOUND,
    case,
    fingerprint,
    has_figures,
    machine,
)


def test_poses_are_averaged_where_any_is_expected_and_the_disk_holds_them() -> None:
    some = machine(disk_mib=1e5)
    assert choose_poses(ACDC, ENCODING, 1000, some)[0] == ("turn_90", "turn_180", "turn_270")
    poses, reason = choose_poses(ACDC, ENCODING, 10**5, some)
    assert poses == () and has_figures(reason)


def test_where_all_lie_alike_only_a_gpu_mirrors_2d_images() -> None:
    alike = replace(ENCODING, rotation=SAME_POSE)
    assert choose_poses(ULTRASOUND, alike, 100, machine())[0] == ()
    assert choose_poses(ULTRASOUND, alike, 100, machine("cuda"))[0] == ("flip_x",)
    assert choose_poses(ACDC, alike, 100, machine("cuda"))[0] == ()


def test_views_fit_the_time() -> None:
    encoding, reason = choose_views(ENCODING, inputs=100, folds=5, seconds=0.5, disk_mib=1e6)
    assert encoding.slice_budget == 1800
    assert encoding.views_for(80) == 12
    alike = replace(ENCODING, rotation=SAME_POSE)
    assert choose_views(alike, 100, 5, 0.5, 1e6)[0].views_for(80) == 6
    assert "1800 passes of 0.5 s fit 15 minutes" in reason
    assert choose_views(ENCODING, 1000, 5, 0.5, 1e6)[0].views_for(800) == 2


def test_plain_slices_are_always_encoded_and_turned_ones_where_poses_are_averaged() -> None:
    for poses, views in ((), 1), (("turn_90",), 2):
        encoding, reason = choose_views(replace(ENCODING, poses=poses), 10_000, folds=5, seconds=2.0, disk_mib=1e6)
        assert encoding.slice_budget == 450
        assert encoding.views_for(8000) == encoding.views_for(10_000) == views
        assert f"so {views} of at most 12 views" in reason
    alike = replace(ENCODING, rotation=SAME_POSE)
    assert choose_views(alike, 10_000, 5, 2.0, 1e6)[0].views_for(8000) == 1


def test_views_fit_the_disk() -> None:
    encoding, reason = choose_views(ENCODING, inputs=100, folds=5, seconds=0.01, disk_mib=1000.0)
    assert encoding.slice_budget < 250
    assert "half of the free" in reason
    assert choose_views(ENCODING, 100, 5, 0.01, 0.0)[0].slice_budget == 1


def test_noise_in_the_measurement_leaves_the_budget() -> None:
    budgets = {choose_views(ENCODING, 10, 5, seconds, 1e6)[0].slice_budget for seconds in (0.301, 0.3, 0.302)}
    assert len(budgets) <= 2


def lying(directions: Sequence[float], patients: int = 10) -> Fingerprint:
    """Return a fingerprint of cases whose second class lies in these directions (degrees) from the first."""
    cases = []
    for index, direction in enumerate(directions):
        entry = case(f"case{index}", extents={"first": 60.0, "second": 60.0})
        place = (5.0, 90 + 30 * math.sin(math.radians(direction)), 90 + 30 * math.cos(math.radians(direction)))
        classes = {
            "first": replace(entry.classes["first"], centroid_mm=(50.0, 90.0, 90.0)),
            "second": replace(entry.classes["second"], centroid_mm=place),
        }
        cases.append(replace(entry, classes=classes))
    groups = {entry.name: str(index % patients) for index, entry in enumerate(cases)}
    return replace(fingerprint(*cases, groups=groups), presence={"first": len(cases), "second": len(cases)})


@pytest.mark.parametrize(
    ("directions", "expected"), [([170, 175, 180, -170, -175] * 2, 30.0), ([0, 40, 80, 120, 160] * 2, 180.0)]
)
def test_views_are_turned_little_where_all_patients_lie_alike(directions: list[float], expected: float) -> None:
    rotation, reason = choose_rotation(lying(directions), 0)
    assert rotation == expected
    assert "from first to second" in reason


def test_any_pose_is_expected_of_few_patients_and_of_one_class() -> None:
    assert choose_rotation(lying([10] * 10, patients=4), 0)[0] == 180.0
    assert choose_rotation(fingerprint(), 0)[0] == 180.0
