"""Poses: an encoder input as it is, mirrored, or turned by right angles, each with the exact way back.

The encoder sees a turned slice differently, and a head errs differently on it: the mean over poses is better than each,
at the price of one encoder pass a pose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.encoding import PLAIN

Element = TypeVar("Element", bound=np.generic)
_MIRRORED: Mapping[str, int] = {"flip_y": -2, "flip_x": -1}
_QUARTERS: Mapping[str, int] = {PLAIN: 0, "turn_90": 1, "turn_180": 2, "turn_270": 3}


def put(array: NDArray[Element], pose: str) -> NDArray[Element]:
    """Return an array `(..., S, S)` in a pose."""
    if pose in _MIRRORED:
        return np.ascontiguousarray(np.flip(array, _MIRRORED[pose]))
    return np.ascontiguousarray(np.rot90(array, _QUARTERS[pose], (-2, -1)))


def point_in(pose: str, size: int) -> Callable[[tuple[float, float]], tuple[float, float]]:
    """Return where a point (x, y) of an input of `size` pixels lies when that is put in a pose."""

    def moved(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        if pose in _MIRRORED:
            return (x, size - 1 - y) if _MIRRORED[pose] == -2 else (size - 1 - x, y)
        for _ in range(_QUARTERS[pose]):
            x, y = y, size - 1 - x
        return x, y

    return moved


def put_back(maps: torch.Tensor, pose: str) -> torch.Tensor:
    """Return maps `(..., S, S)` that were put in a pose as they were before; the same ones where that is plain."""
    if pose == PLAIN:
        return maps  # torch would copy them
    if pose in _MIRRORED:
        return torch.flip(maps, [_MIRRORED[pose]])
    return torch.rot90(maps, -_QUARTERS[pose], (-2, -1))
