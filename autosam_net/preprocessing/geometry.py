"""Transpose, crop and resample a volume, and the exact way back."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from autosam_net.data.case import CaseProperties

Scalar = TypeVar("Scalar", bound=np.generic)
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
ROUNDING = 1e-5  # of shares


def slice_axis_first(array: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
    """Return `(..., Z, Y, X)` with the spatial axis `axis` (0-2) moved to the front; the others keep their order."""
    return np.moveaxis(array, array.ndim - 3 + axis, array.ndim - 3)


def slice_axis_back(array: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
    """Return the inverse of `slice_axis_first`."""
    return np.moveaxis(array, array.ndim - 3, array.ndim - 3 + axis)


def crop_box(array: NDArray[np.generic]) -> Box:
    """Return start and stop along (Z, Y, X) of what differs from each channel's minimum in `(C, Z, Y, X)`.

    Borders that an earlier step filled with a constant (air, zero after skull stripping, the black surround of an
    ultrasound fan) need no encoding. A constant image is kept whole.
    """
    occupied = [np.zeros(length, bool) for length in array.shape[1:]]
    for channel in array:
        lowest = channel.min()
        for position, plane in enumerate(channel):  # a mask of the whole volume would cost a quarter of its memory
            above = plane > lowest
            occupied[0][position] |= above.any()
            occupied[1] |= above.any(axis=1)
            occupied[2] |= above.any(axis=0)
    if not occupied[0].any():
        _, depth, height, width = array.shape
        return (0, depth), (0, height), (0, width)
    z, y, x = ((int(np.argmax(part)), len(part) - int(np.argmax(part[::-1]))) for part in occupied)
    return z, y, x


def crop(array: NDArray[Scalar], box: Box) -> NDArray[Scalar]:
    """Return the part of `(..., Z, Y, X)` inside `box`, a view."""
    window: tuple[Any, ...] = (..., *(slice(start, stop) for start, stop in box))
    return array[window]


def plane_shape(shape: tuple[int, int], spacing: tuple[float, float], target: float) -> tuple[int, int]:
    """Return the pixels `(Y, X)` of a plane of `shape` and `spacing` (mm) at the isotropic spacing `target` (mm)."""
    height, width = (max(1, round(size * step / target)) for size, step in zip(shape, spacing, strict=True))
    return height, width


def resize_planes(volume: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return `(Z, Y, X)` resampled in plane to `shape`, linearly, smoothed first where it shrinks.

    It is what `skimage.transform.resize` returns with order 1 and mode "edge". Where nothing is to be done, this is the
    volume itself.
    """
    if volume.shape[1:] == shape:
        return volume
    rows, columns = (_resampling(size, target) for size, target in zip(volume.shape[1:], shape, strict=True))
    resized = np.empty((len(volume), *shape), np.float32)
    for target, plane in zip(resized, volume, strict=True):
        target[...] = (columns @ (rows @ plane).T).T
    return resized


@functools.lru_cache(maxsize=8)
def _resampling(size: int, target: int) -> Any:
    """Return the sparse matrix `(target, size)` that resamples a line: what becomes of a one at each of its places.

    Two products with such matrices resample a plane several times as fast as an interpolation pixel by pixel.
    """
    from scipy import ndimage, sparse

    ones = np.eye(size, dtype=np.float32)
    if target < size:
        ones = ndimage.gaussian_filter1d(ones, (size / target - 1) / 2, axis=0, mode="nearest")
    return sparse.csr_array(ndimage.zoom(ones, (target / size, 1), order=1, mode="nearest", grid_mode=True))


def resize_labels(labels: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[np.integer]:
    """Return the label map `(Z, Y, X)` resampled in plane: each pixel gets the label with the largest share of it.

    Of equal shares the lowest label wins.
    """
    if labels.shape[1:] == shape:
        return labels.copy()
    best = np.full((labels.shape[0], *shape), -1.0, np.float32)
    resized = np.zeros(best.shape, labels.dtype)
    for value in np.unique(labels):
        share = resize_planes((labels == value).astype(np.float32), shape)
        resized[share > best + ROUNDING] = value
        np.maximum(best, share, out=best)
    return resized


def restore(array: NDArray[Scalar], properties: CaseProperties) -> NDArray[Scalar]:
    """Return `(..., Z, Y, X)` on the cropped grid (slice axis first) put back on the raw grid, 0 outside the crop."""
    whole = np.zeros((*array.shape[:-3], *properties.raw_shape), array.dtype)
    cropped_part(whole, properties)[...] = array
    return whole


def restore_slices(slices: Iterable[NDArray[Scalar]], properties: CaseProperties, dtype: DTypeLike) -> NDArray[Scalar]:
    """Return the slices `(Y, X)` of the cropped grid on the raw grid `(Z, Y, X)`; nothing else is held of them."""
    whole = np.zeros(properties.raw_shape, dtype)
    for target, plane in zip(cropped_part(whole, properties), slices, strict=True):
        target[...] = plane
    return whole


def cropped_part(whole: NDArray[Scalar], properties: CaseProperties) -> NDArray[Scalar]:
    """Return of `(..., Z, Y, X)` on the raw grid what lies inside the crop, slice axis first, a view."""
    return crop(slice_axis_first(whole, properties.slice_axis), properties.crop)
