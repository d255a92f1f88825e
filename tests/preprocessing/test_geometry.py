"""The way to the slices and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.transform import resize

from autosam_net.data.case import CaseProperties
from autosam_net.data.volume import Geometry
from autosam_net.preprocessing import geometry

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)


@given(SHAPES, st.integers(0, 2))
def test_slice_axis_back_undoes_slice_axis_first(shape: tuple[int, ...], axis: int) -> None:
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    moved = geometry.slice_axis_first(array, axis)
    assert moved.shape[1] == shape[axis]
    np.testing.assert_array_equal(geometry.slice_axis_back(moved, axis), array)


@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 2), *[st.integers(1, 6)] * 3), elements=st.integers(0, 2)))
def test_crop_box_loses_nothing_above_the_minimum(array: np.ndarray) -> None:
    box = geometry.crop_box(array)
    inside = np.zeros(array.shape[1:], bool)
    geometry.crop(inside, box)[...] = True
    for channel in array:
        assert (channel[~inside] == channel.min()).all()
    assert geometry.crop(array, box).size > 0


def test_crop_box_is_tight() -> None:
    array = np.full((1, 5, 6, 7), -1024)
    array[0, 2, 1:4, 3:5] = 10
    assert geometry.crop_box(array) == ((2, 3), (1, 4), (3, 5))


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.integers(0, 2), st.data())
def test_restore_puts_the_crop_back_in_its_place(shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    raw = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)))
    moved = geometry.slice_axis_first(raw, axis)
    box = geometry.crop_box(moved[None])
    cropped = geometry.crop(moved, box)
    properties = CaseProperties("case", shape, Geometry((1.0, 1.0, 1.0)), axis, box, cropped.shape)
    restored = geometry.restore(cropped, properties)
    assert restored.shape == raw.shape
    outside = raw.min() if raw.max() > raw.min() else 0
    np.testing.assert_array_equal(np.where(restored == 0, 0, raw), restored)
    assert set(np.unique(raw[restored != raw])) <= {outside}


@pytest.mark.parametrize("target", [0.7, 1.0, 2.3])
def test_resampling_there_and_back_keeps_a_smooth_image(target: float) -> None:
    y, x = np.mgrid[0:60, 0:80] / 20
    image = (np.sin(y) * np.cos(x))[None].astype(np.float32)
    shape = geometry.plane_shape((60, 80), (1.0, 1.0), target)
    assert shape == (round(60 / target), round(80 / target))
    back = geometry.resize_planes(geometry.resize_planes(image, shape), (60, 80))
    assert np.abs(back - image)[:, 4:-4, 4:-4].max() < 0.03


@pytest.mark.parametrize("shape", [(70, 100), (12, 9), (30, 51), (1, 1), (29, 200)])
def test_planes_are_resampled_as_by_scikit_image(shape: tuple[int, int]) -> None:
    volume = np.random.default_rng(0).random((2, 30, 50), np.float32)
    expected = [resize(plane, shape, order=1, mode="edge", anti_aliasing=True) for plane in volume]
    np.testing.assert_allclose(geometry.resize_planes(volume, shape), expected, atol=1e-6)


def test_of_equal_shares_the_lowest_label_wins() -> None:
    labels = np.array([[[5, 3]]])
    np.testing.assert_array_equal(geometry.resize_labels(labels, (1, 3)), [[[5, 3, 3]]])


def test_labels_stay_labels_and_keep_their_areas() -> None:
    y, x = np.mgrid[0:90, 0:90]
    radius = np.hypot(y - 45, x - 45)
    labels = np.select([radius < 15, radius < 25], [3, 7], 0).astype(np.uint8)[None]
    resized = geometry.resize_labels(labels, (60, 60))
    assert set(np.unique(resized)) == {0, 3, 7}
    for value in (3, 7):
        assert (resized == value).sum() == pytest.approx((labels == value).sum() * (60 / 90) ** 2, rel=0.05)
