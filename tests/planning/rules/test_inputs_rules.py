"""Intensities and channels follow from what the files hold."""

from __future__ import annotations

import pytest

from autosam_net.data.encoding import RgbSource
from autosam_net.data.plan import Normalization
from planning.rules.grid import in_plane
from planning.rules.inputs import choose_normalizations, choose_rgb
from tests.planning.figures import (
    ACDC,
    HIPPOCAMPUS,
    ULTRASOUND,
    case,
    dataset,
    fingerprint,
    has_figures,
    intensities,
)


def test_normalisation_by_kind() -> None:
    hounsfield = fingerprint(case(channels=(intensities(-1024, 3000),)))
    found, reason = choose_normalizations(hounsfield, ("CT",), ".nii.gz")
    assert found == (Normalization("ct", 5.0, 95.0),)
    assert "5 .. 95 HU" in reason
    found, _ = choose_normalizations(ACDC, ("MRI",), ".nii.gz")
    assert found == (Normalization("percentile", 0.5, 99.5),)
    colour = fingerprint(case(channels=(intensities(0, 255),) * 3))
    found, _ = choose_normalizations(colour, ("R", "G", "B"), ".png")
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
    found, reason = choose_rgb(figures, ("MRI",), in_plane(figures, axis))
    assert channels_of(found) == expected
    assert has_figures(reason)


def test_several_channels() -> None:
    sizes = in_plane(ACDC, 0)
    assert channels_of(choose_rgb(ACDC, ("a", "b"), sizes)[0]) == [(0, 0), (1, 0), (0, 0)]
    assert channels_of(choose_rgb(ACDC, ("a", "b", "c"), sizes)[0]) == [(0, 0), (1, 0), (2, 0)]
    means = (80.0, 52.0, 10.0, 65.0)  # the image's mean is 50
    figures = fingerprint(case(channels=tuple(intensities(foreground_mean=mean) for mean in means)))
    found, reason = choose_rgb(figures, ("T1", "T2", "PD", "ADC"), sizes)
    assert channels_of(found) == [(0, 0), (2, 0), (3, 0)]
    assert "unused: T2" in reason
    assert "PD 4.00" in reason


def test_channel_names_reach_the_reason() -> None:
    _, reason = choose_normalizations(ACDC, dataset(("cine MR",)).channel_names, ".nii.gz")
    assert "'cine MR'" in reason
