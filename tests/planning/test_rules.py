from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import STRATEGIES, Encoding, Normalization, Preprocessing, RgbSource
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import UsageError
from planning import rules
from planning.machine import TunedProbe
from tests.planning.figures import RECIPES, case, dataset, fingerprint, intensities, machine

LITE, VIT = ENCODERS.get("lite_medsam"), ENCODERS.get("vit_b")
ACDC = fingerprint(case(shape=(10, 256, 276), spacing=(10.0, 1.5625, 1.5625), extents={"rv": 60.0, "myo": 62.0}))
HIPPOCAMPUS = fingerprint(case(shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), extents={"anterior": 15.0}))
ULTRASOUND = fingerprint(case(shape=(1, 540, 800), spacing=(1.0, 1.0, 1.0), extents={"head": 300.0}, calibrated=False))
LESIONS = fingerprint(case(shape=(160, 180, 140), spacing=(1.0, 1.0, 1.0), extents={"lesion": 5.0}))
CUBE = fingerprint(case(shape=(64, 64, 64), spacing=(1.0, 1.0, 1.0)))


def has_figures(reason: str) -> bool:
    return any(character.isdigit() for character in reason) and "\n" not in reason


@pytest.mark.parametrize(
    ("figures", "axis"),
    [
        (ACDC, 0),
        (ULTRASOUND, 0),
        (HIPPOCAMPUS, 2),
        (fingerprint(case(shape=(200, 30, 200), spacing=(0.5, 3.0, 0.5))), 1),
        (fingerprint(case(shape=(200, 180, 190), spacing=(1.4, 1.0, 1.0))), 1),
        (CUBE, 0),
    ],
)
def test_slices_are_cut_across_the_coarse_or_the_short_axis(figures: object, axis: int) -> None:
    found, reason = rules.choose_slice_axis(figures)
    assert found == axis
    assert has_figures(reason)


@pytest.mark.parametrize(
    ("figures", "axis", "size", "spacing"),
    [
        (ACDC, 0, 256, 431.25 / 256),
        (HIPPOCAMPUS, 2, 128, 0.5),
        (ULTRASOUND, 0, 256, 800 / 256),
        (fingerprint(case(shape=(10, 90, 90), spacing=(5.0, 1.0, 1.0))), 0, 192, 0.5),
    ],
)
def test_input_size_and_spacing_of_the_default_encoder(figures: object, axis: int, size: int, spacing: float) -> None:
    sizes = rules.in_plane(figures, axis)
    found, reason = rules.choose_input_size(sizes, LITE, machine())
    assert found == size
    assert has_figures(reason)
    resolution = rules.choose_resolution(figures, axis, size, LITE)
    assert resolution.spacing == pytest.approx(spacing, rel=1e-3)
    assert resolution.spacing >= spacing
    assert has_figures(resolution.spacing_reason)
    assert has_figures(resolution.tiling_reason)


def test_a_slice_that_sets_the_spacing_fits_one_input() -> None:
    for width in range(100, 700, 7):
        figures = fingerprint(case(shape=(10, 80, width), spacing=(9.0, 0.683, 0.683)))
        size, _ = rules.choose_input_size(rules.in_plane(figures, 0), LITE, machine())
        spacing = rules.choose_resolution(figures, 0, size, LITE).spacing
        assert max(rules.planned_shape(figures.cases[0], Preprocessing(0, spacing, ()))[1:]) <= size


def test_small_structures_get_finer_pixels_and_tiles() -> None:
    resolution = rules.choose_resolution(LESIONS, 2, 256, LITE)
    assert resolution.spacing == 0.5  # 5 mm / 12 px would be finer than half the raw spacing
    assert "the smallest class is 5 mm across" in resolution.spacing_reason
    assert "are cut into inputs of 256 px" in resolution.tiling_reason
    larger = fingerprint(case(shape=(160, 180, 140), spacing=(1.0, 1.0, 1.0), extents={"lesion": 8.0}))
    assert rules.choose_resolution(larger, 2, 256, LITE).spacing == pytest.approx(8 / 12, rel=1e-3)


def test_small_structures_that_no_resolution_helps() -> None:
    figures = fingerprint(case(shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), extents={"dot": 3.0}))
    resolution = rules.choose_resolution(figures, 2, 128, LITE)
    assert resolution.spacing == 0.5
    assert "has only 6.0 px across" in resolution.spacing_reason


def test_the_smallest_class_is_that_of_the_classes_not_of_the_cases() -> None:
    cases = [case(f"{index}", extents={"big": 50.0, "small": 10.0 + index}) for index in range(3)]
    assert rules.smallest_extent(fingerprint(*cases), 0) == pytest.approx(11.0 + 0.1 * (50.0 - 11.0))
    assert rules.smallest_extent(fingerprint(case(extents={})), 0) is None


def test_large_encoders_are_smaller_on_a_cpu() -> None:
    sizes = rules.in_plane(ACDC, 0)
    assert rules.choose_input_size(sizes, VIT, machine())[0] == 512
    assert rules.choose_input_size(sizes, VIT, machine("cuda"))[0] == 1024


def test_the_encoder_goes_by_device_and_weights() -> None:
    assert rules.choose_encoder(machine(), None)[0] == "lite_medsam"
    assert rules.choose_encoder(machine("cuda"), None)[0] == "lite_medsam"
    assert rules.choose_encoder(machine("cuda", local_weights=("vit_b",)), None)[0] == "vit_b"
    assert rules.choose_encoder(machine("cuda", local_weights=("vit_b",), gpu_mib=4000.0), None)[0] == "lite_medsam"
    name, reason = rules.choose_encoder(machine(), "vit_h")
    assert name == "vit_h"
    assert "--encoder" in reason
    with pytest.raises(UsageError, match="unknown encoder 'vit_x'; did you mean"):
        rules.choose_encoder(machine(), "vit_x")


def test_normalisation_by_kind() -> None:
    hounsfield = fingerprint(case(channels=(intensities(-1024, 3000),)))
    found, reason = rules.choose_normalizations(hounsfield, ("CT",), ".nii.gz")
    assert found == (Normalization("ct", 5.0, 95.0),)
    assert "5 .. 95 HU" in reason
    found, _ = rules.choose_normalizations(ACDC, ("MRI",), ".nii.gz")
    assert found == (Normalization("percentile", 0.5, 99.5),)
    colour = fingerprint(case(channels=(intensities(0, 255),) * 3))
    found, _ = rules.choose_normalizations(colour, ("R", "G", "B"), ".png")
    assert found == (Normalization("eight_bit"),) * 3


def channels_of(source: tuple[RgbSource, ...]) -> list[tuple[int, int]]:
    return [(entry.channel, entry.offset) for entry in source]


@pytest.mark.parametrize(
    ("figures", "axis", "expected"),
    [
        (HIPPOCAMPUS, 2, [(0, -1), (0, 0), (0, 1)]),
        (ACDC, 0, [(0, 0)] * 3),
        (ULTRASOUND, 0, [(0, 0)] * 3),
        (fingerprint(case(spacing=(3.0, 1.0, 1.0))), 0, [(0, -1), (0, 0), (0, 1)]),
    ],
)
def test_neighbours_fill_the_input_where_they_are_near(figures: object, axis: int, expected: object) -> None:
    found, reason = rules.choose_rgb(figures, ("MRI",), rules.in_plane(figures, axis))
    assert channels_of(found) == expected
    assert has_figures(reason)


def test_several_channels() -> None:
    sizes = rules.in_plane(ACDC, 0)
    assert channels_of(rules.choose_rgb(ACDC, ("a", "b"), sizes)[0]) == [(0, 0), (1, 0), (0, 0)]
    assert channels_of(rules.choose_rgb(ACDC, ("a", "b", "c"), sizes)[0]) == [(0, 0), (1, 0), (2, 0)]
    means = (80.0, 52.0, 10.0, 65.0)  # the image's mean is 50
    figures = fingerprint(case(channels=tuple(intensities(foreground_mean=mean) for mean in means)))
    found, reason = rules.choose_rgb(figures, ("T1", "T2", "PD", "ADC"), sizes)
    assert channels_of(found) == [(0, 0), (2, 0), (3, 0)]
    assert "unused: T2" in reason
    assert "PD 4.00" in reason


def test_folds_shrink_with_few_patients() -> None:
    groups = {f"{patient}_{frame}": str(patient) for patient in range(3) for frame in range(4)}
    folds, reason = rules.choose_folds(groups, None)
    assert folds == 3
    assert "fewer groups than 5" in reason
    assert rules.choose_folds({str(index): str(index) for index in range(9)}, None)[0] == 5
    assert rules.choose_folds(groups, 2)[0] == 2


def test_poses_are_averaged_where_any_is_expected_and_the_disk_holds_them() -> None:
    some = machine(disk_mib=1e5)
    assert rules.choose_poses(ACDC, ENCODING, 1000, some)[0] == ("turn_90", "turn_180", "turn_270")
    poses, reason = rules.choose_poses(ACDC, ENCODING, 10**5, some)
    assert poses == () and has_figures(reason)


def test_where_all_lie_alike_only_a_gpu_mirrors_2d_images() -> None:
    alike = replace(ENCODING, rotation=rules.SAME_POSE)
    assert rules.choose_poses(ULTRASOUND, alike, 100, machine())[0] == ()
    assert rules.choose_poses(ULTRASOUND, alike, 100, machine("cuda"))[0] == ("flip_x",)
    assert rules.choose_poses(ACDC, alike, 100, machine("cuda"))[0] == ()


ENCODING = Encoding("lite_medsam", None, 256, 0.25, rules.THRICE, 1, 1, 180.0)


def test_views_fit_the_time() -> None:
    encoding, reason = rules.choose_views(ENCODING, inputs=100, folds=5, seconds=0.5, disk_mib=1e6)
    assert encoding.slice_budget == 1800
    assert encoding.views_for(80) == 12
    alike = replace(ENCODING, rotation=rules.SAME_POSE)
    assert rules.choose_views(alike, 100, 5, 0.5, 1e6)[0].views_for(80) == 6
    assert "1800 passes of 0.5 s fit 15 minutes" in reason
    assert rules.choose_views(ENCODING, 1000, 5, 0.5, 1e6)[0].views_for(800) == 2


def test_plain_slices_are_always_encoded_and_turned_ones_where_any_pose_is_expected() -> None:
    encoding, _ = rules.choose_views(ENCODING, inputs=10_000, folds=5, seconds=2.0, disk_mib=1e6)
    assert encoding.slice_budget == 16000
    assert encoding.views_for(8000) == 2
    alike = replace(ENCODING, rotation=rules.SAME_POSE)
    assert rules.choose_views(alike, 10_000, 5, 2.0, 1e6)[0].views_for(8000) == 1


def test_views_fit_the_disk() -> None:
    encoding, reason = rules.choose_views(ENCODING, inputs=100, folds=5, seconds=0.01, disk_mib=1000.0)
    assert encoding.slice_budget < 250
    assert "half of the free" in reason
    assert rules.choose_views(ENCODING, 100, 5, 0.01, 0.0)[0].slice_budget == 160


def test_the_slices_themselves_are_no_encoder_to_plan_for() -> None:
    with pytest.raises(UsageError, match=r"--encoder image: no encoder: the slices themselves, .*unet take it by"):
        rules.choose_encoder(machine(), "image")


def test_noise_in_the_measurement_leaves_the_budget() -> None:
    budgets = {rules.choose_views(ENCODING, 10, 5, seconds, 1e6)[0].slice_budget for seconds in (0.301, 0.3, 0.302)}
    assert len(budgets) <= 2


@pytest.mark.parametrize(
    ("inputs", "patients", "factor"),
    [(1, 1, 1.0), (40, 2, 1.0), (160, 2, 2.0), (640, 2, 2.5), (10**6, 2, 2.5), (80, 80, 2.5), (8, 8, 2.0)],
)
def test_epochs_grow_with_the_training_inputs_and_patients(inputs: int, patients: int, factor: float) -> None:
    found, reason = rules.choose_head("cnn", RECIPES["cnn"], inputs, patients, largest=30.0)
    assert found.epochs_for(inputs, patients) == round(RECIPES["cnn"].epochs * factor)
    assert found.batch_size == min(8, inputs)
    assert has_figures(reason)


def test_large_structures_get_context_where_a_head_has_it() -> None:
    recipe = replace(RECIPES["cnn"], settings={"context": 0.0}, batch_size=16, crop=0.5)
    small, _ = rules.choose_head("cnn", recipe, 100, 5, largest=rules.LARGE_PIXELS)
    large, reason = rules.choose_head("cnn", recipe, 100, 5, largest=99.0)
    assert (small.settings["context"], large.settings["context"]) == (0.0, 1.0)
    assert (small.crop, small.batch_size) == (0.5, 16)
    assert (large.crop, large.batch_size) == (1.0, 8)  # whole inputs, so that the context is seen
    assert "99 px across" in reason
    assert "context" not in rules.choose_head("linear", RECIPES["linear"], 100, 5, largest=99.0)[0].settings


def shares(*largest: float) -> Fingerprint:
    cases = [case(f"case{index}") for index in range(len(largest))]
    return fingerprint(
        *(
            replace(one, classes={"organ": replace(one.classes["organ"], largest_component_mm3=share * 1e4)})
            for one, share in zip(cases, largest, strict=True)
        )
    )


@pytest.mark.parametrize(
    ("largest", "kept"), [((1.0, 0.96), ("organ",)), ((1.0, 0.9), ()), ((1.0,), ()), ((0.95, 0.95, 1.0), ("organ",))]
)
def test_only_classes_of_one_piece_in_every_case_lose_their_other_components(
    largest: tuple[float, ...], kept: tuple[str, ...]
) -> None:
    found, reason = rules.choose_keep_largest(shares(*largest), LabelSet({"background": 0, "organ": 1, "absent": 2}))
    assert found == kept
    assert f"organ {min(largest):.1%}" in reason


@pytest.mark.parametrize(("together", "kept"), [(1.0, ("foreground", "first", "second")), (0.5, ("first", "second"))])
def test_classes_that_hang_together_are_one_piece_before_each_is(together: float, kept: tuple[str, ...]) -> None:
    cases = [case(f"case{index}", extents={"first": 60.0, "second": 60.0}) for index in range(2)]
    joined = [replace(one, foreground=replace(one.foreground, largest_component_mm3=together * 1e4)) for one in cases]
    labels = LabelSet({"background": 0, "first": 1, "second": 2})
    assert rules.choose_keep_largest(fingerprint(*joined), labels)[0] == kept


def test_regions_keep_every_component() -> None:
    regions = LabelSet({"background": 0, "organ": (1, 2), "core": 2}, (1, 2))
    assert rules.choose_keep_largest(shares(1.0, 1.0), regions)[0] == ()


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
    rotation, reason = rules.choose_rotation(lying(directions), 0)
    assert rotation == expected
    assert "from first to second" in reason


def test_any_pose_is_expected_of_few_patients_and_of_one_class() -> None:
    assert rules.choose_rotation(lying([10] * 10, patients=4), 0)[0] == 180.0
    assert rules.choose_rotation(fingerprint(), 0)[0] == 180.0


def test_precision_is_explained() -> None:
    assert rules.explain_precision(machine()).startswith("bfloat16")
    assert rules.explain_precision(replace(machine(), bfloat16=False)).startswith("float32")


def test_inputs_are_slices_times_tiles() -> None:
    preprocessing = Preprocessing(0, 0.75, (Normalization("percentile", 0.5, 99.5),))
    figures = fingerprint(case("a", (10, 256, 256), (10.0, 1.5, 1.5)), case("b", (4, 128, 128), (10.0, 1.5, 1.5)))
    assert rules.count_case_inputs(figures, preprocessing, ENCODING) == {"a": 10 * 9, "b": 4}


def test_channel_names_reach_the_reason() -> None:
    _, reason = rules.choose_normalizations(ACDC, dataset(("cine MR",)).channel_names, ".nii.gz")
    assert "'cine MR'" in reason


@pytest.mark.parametrize(
    ("device", "tuned", "patients", "expected", "why"),
    [
        (
            "cpu",
            None,
            80,
            "head",
            "at 0.4 s for one input on cpu: it has no blocks to tune, or there is no memory for it",
        ),
        ("cpu", TunedProbe(1.5, {rules.TUNING: 3e3}), 80, "head", "600 fit an hour, under the 1000"),
        ("cuda", TunedProbe(0.01, {rules.TUNING: 9e3}), 80, "head", "takes 9000 MiB of memory, 8000 are there"),
        ("cuda", TunedProbe(0.01, {rules.TUNING: 3e3}), 4, "head", "trains on 4 patients, under the 5"),
        ("cuda", TunedProbe(0.01, {rules.TUNING: 3e3}), 80, rules.TUNING, r"--tune encoder\+head:lora --from-head"),
        ("cpu", TunedProbe(0.1, {rules.TUNING: 3e3}), 80, rules.TUNING, "9000 fit an hour"),
    ],
)
def test_the_encoder_learns_where_time_memory_and_patients_allow_it(
    device: str, tuned: TunedProbe | None, patients: int, expected: str, why: str
) -> None:
    strategy, reason = rules.choose_strategy(machine(device), 0.4, tuned, patients)
    assert strategy == expected and strategy in STRATEGIES
    assert re.search(why, reason) and "\n" not in reason


def test_an_encoder_that_is_too_slow_to_learn_is_named() -> None:
    strategy, reason = rules.choose_strategy(machine("cpu"), 2.84, None, 80)
    assert strategy == "head" and "one input takes 2.8 s on cpu, over 2, so that too few steps" in reason
