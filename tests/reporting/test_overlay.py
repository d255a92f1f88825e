from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.reporting import overlay


@pytest.mark.parametrize("number", [0, 1, 7, 40])
def test_every_class_has_a_colour_of_its_own(number: int) -> None:
    found = overlay.colours(number)
    assert len(set(found)) == number
    assert all(len(colour) == 7 and int(colour[1:], 16) >= 0 for colour in found)


@given(st.lists(st.integers(), min_size=1, max_size=50, unique=True), st.integers(1, 10))
def test_entries_are_spread_in_order(entries: list[int], most: int) -> None:
    found = overlay.spread(entries, most)
    assert len(found) == min(most, len(entries))
    assert [entry for entry in entries if entry in found] == found
    if most > 1:
        assert {entries[0], entries[-1]} <= set(found)


@given(st.integers(0, 2**30), st.integers(2, 12), st.integers(2, 12))
def test_the_area_inside_the_outlines_is_that_of_the_mask(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    area = 0.0
    for curve in overlay.outline(mask):
        assert np.allclose(curve[0], curve[-1])
        assert curve.min() >= 0 and curve[:, 0].max() <= width and curve[:, 1].max() <= height
        x, y = curve.T
        area += float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    corners = sum(len(curve) - 1 for curve in overlay.outline(mask)) / 8 + 1  # each cut corner takes an eighth
    assert abs(abs(area) - mask.sum()) <= corners


def test_nothing_has_no_outline() -> None:
    assert overlay.outline(np.zeros((4, 5), bool)) == []


def test_slices_with_foreground_come_first() -> None:
    labels = np.zeros((9, 2, 2), int)
    labels[3:6] = 1
    assert overlay.slices_to_show([labels], 9, 5) == [3, 4, 5]
    assert overlay.slices_to_show([], 9, 3) == [0, 4, 8]


def test_the_axis_of_acquisition() -> None:
    assert overlay.thickest_axis((10, 200, 200), (8, 1.5, 1.5)) == 0
    assert overlay.thickest_axis((200, 12, 200), (1, 5, 1)) == 1
    assert overlay.thickest_axis((100, 90, 80), (1, 1, 1)) == 2
    assert overlay.thickest_axis((1, 50, 60), (1, 3, 1)) == 0


def test_slices_across_any_axis_and_their_spacing() -> None:
    array = np.arange(24).reshape(1, 2, 3, 4)
    assert overlay.slices_first(array, 0) is not None and overlay.slices_first(array, 0).shape == (1, 2, 3, 4)
    turned = overlay.slices_first(array, 2)
    assert turned.shape == (1, 4, 2, 3)
    assert turned[0, 1].tolist() == array[0, ::-1, :, 1].tolist()  # Z points upwards
    assert overlay.plane_spacing((5.0, 2.0, 1.0), 1) == (5.0, 1.0)


def test_eight_bit_survives_anything() -> None:
    plane = np.array([[np.nan, np.inf], [-5.0, 5.0]])
    assert overlay.to_eight_bit(plane, overlay.intensity_window(plane)).dtype == np.uint8
    flat = np.full((1, 3, 3), 7.0)
    assert not overlay.to_eight_bit(flat[0], overlay.intensity_window(flat)).any()


def test_colour_images_are_told_from_three_channels() -> None:
    assert overlay.is_colour(np.full((3, 1, 2, 2), 255.0))
    assert not overlay.is_colour(np.full((3, 1, 2, 2), 256.0))
    assert not overlay.is_colour(np.full((1, 1, 2, 2), 9.0))
