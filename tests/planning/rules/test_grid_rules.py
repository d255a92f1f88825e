"""Slices, sizes and spacings follow from the figures of the cases."""

from __future__ import annotations

import pytest

from autosam_net.data.plan import Normalization, Preprocessing
from planning.rules.grid import (
    choose_input_size,
    choose_resolution,
    choose_slice_axis,
    count_case_inputs,
    in_plane,
    planned_shape,
    smallest_extent,
)
from tests.planning.figures import (
    ACDC,
    CUBE,
    ENCODING,
    HIPPOCAMPUS,
    LESIONS,
    LITE,
    ULTRASOUND,
    VIT,
    case,
    fingerprint,
    has_figures,
    machine,
)


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
    found, reason = choose_slice_axis(figures)
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
    sizes = in_plane(figures, axis)
    found, reason = choose_input_size(sizes, LITE, machine())
    assert found == size
    assert has_figures(reason)
    resolution = choose_resolution(figures, axis, size, LITE)
    assert resolution.spacing == pytest.approx(spacing, rel=1e-3)
    assert resolution.spacing >= spacing
    assert has_figures(resolution.spacing_reason)
    assert has_figures(resolution.tiling_reason)


def test_a_slice_that_sets_the_spacing_fits_one_input() -> None:
    for width in range(100, 700, 7):
        figures = fingerprint(case(shape=(10, 80, width), spacing=(9.0, 0.683, 0.683)))
        size, _ = choose_input_size(in_plane(figures, 0), LITE, machine())
        spacing = choose_resolution(figures, 0, size, LITE).spacing
        assert max(planned_shape(figures.cases[0], Preprocessing(0, spacing, ()))[1:]) <= size


def test_small_structures_get_finer_pixels_and_tiles() -> None:
    resolution = choose_resolution(LESIONS, 2, 256, LITE)
    assert resolution.spacing == 0.5  # 5 mm / 12 px would be finer than half the raw spacing
    assert "the smallest class is 5 mm across" in resolution.spacing_reason
    assert "are cut into inputs of 256 px" in resolution.tiling_reason
    larger = fingerprint(case(shape=(160, 180, 140), spacing=(1.0, 1.0, 1.0), extents={"lesion": 8.0}))
    assert choose_resolution(larger, 2, 256, LITE).spacing == pytest.approx(8 / 12, rel=1e-3)


def test_small_structures_that_no_resolution_helps() -> None:
    figures = fingerprint(case(shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), extents={"dot": 3.0}))
    resolution = choose_resolution(figures, 2, 128, LITE)
    assert resolution.spacing == 0.5
    assert "has only 6.0 px across" in resolution.spacing_reason


def test_the_smallest_class_is_that_of_the_classes_not_of_the_cases() -> None:
    cases = [case(f"{index}", extents={"big": 50.0, "small": 10.0 + index}) for index in range(3)]
    assert smallest_extent(fingerprint(*cases), 0) == pytest.approx(11.0 + 0.1 * (50.0 - 11.0))
    assert smallest_extent(fingerprint(case(extents={})), 0) is None


def test_large_encoders_are_smaller_on_a_cpu() -> None:
    sizes = in_plane(ACDC, 0)
    assert choose_input_size(sizes, VIT, machine())[0] == 512
    assert choose_input_size(sizes, VIT, machine("cuda"))[0] == 1024


def test_inputs_are_slices_times_tiles() -> None:
    preprocessing = Preprocessing(0, 0.75, (Normalization("percentile", 0.5, 99.5),))
    figures = fingerprint(case("a", (10, 256, 256), (10.0, 1.5, 1.5)), case("b", (4, 128, 128), (10.0, 1.5, 1.5)))
    assert count_case_inputs(figures, preprocessing, ENCODING) == {"a": 10 * 9, "b": 4}
