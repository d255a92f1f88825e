"""Intensities of one channel to [0, 1], the range that every encoder takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.plan import Normalization
from autosam_net.registry import Registry

Normalizer = Callable[[NDArray[np.generic], Normalization], tuple[float, float]]
"""Takes one channel `(Z, Y, X)` and the settings; returns the intensities that become 0 and 1."""

NORMALIZATIONS: Registry[Normalizer] = Registry("normalisation")
SAMPLED_VOXELS = 2_000_000  # percentiles of more voxels than that are taken from an even subsample


@NORMALIZATIONS.register("ct")
def ct_window(channel: NDArray[np.generic], settings: Normalization) -> tuple[float, float]:
    """Return the fixed window (HU) that the plan took from foreground percentiles, as in nnU-Net."""
    return settings.lower, settings.upper


@NORMALIZATIONS.register("percentile")
def percentile_window(channel: NDArray[np.generic], settings: Normalization) -> tuple[float, float]:
    """Return two percentiles of this image: scanners without a calibrated scale (MR, ultrasound)."""
    values = channel.flat[:: max(1, channel.size // SAMPLED_VOXELS)].astype(np.float64)
    lower, upper = np.percentile(values, (settings.lower, settings.upper))
    return float(lower), float(upper)


@NORMALIZATIONS.register("eight_bit")
def eight_bit_window(channel: NDArray[np.generic], settings: Normalization) -> tuple[float, float]:
    """Return 0 and 255: colour images of 8 bits are left as they are."""
    return 0.0, 255.0


@NORMALIZATIONS.register("min_max")
def min_max_window(channel: NDArray[np.generic], settings: Normalization) -> tuple[float, float]:
    """Return the smallest and the largest intensity of this image."""
    return float(channel.min()), float(channel.max())


def normalize(channel: NDArray[np.generic], settings: Normalization) -> NDArray[np.float32]:
    """Return one channel `(Z, Y, X)` scaled and clipped to [0, 1]; a constant channel becomes 0."""
    return np.stack(list(normalized_planes(channel, settings)))


def normalized_planes(channel: NDArray[np.generic], settings: Normalization) -> Iterator[NDArray[np.float32]]:
    """Yield the planes `(Y, X)` of `normalize`, one at a time.

    Computed in float64, since intensities can exceed 10^6, which would double the memory of a whole channel.
    """
    lower, upper = NORMALIZATIONS.get(settings.name)(channel, settings)
    for plane in channel:
        if lower < upper:
            yield np.clip((plane.astype(np.float64) - lower) / (upper - lower), 0.0, 1.0).astype(np.float32)
        else:
            yield np.zeros(plane.shape, np.float32)
