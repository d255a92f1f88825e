"""SAM's encoding of places in an image, for the transformers of its mask decoder."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


def encode_places(places: Tensor, matrix: Tensor) -> Tensor:
    """Return SAM's encoding (..., 2 F) of places (..., 2), given as x and y in an image that is [0, 1] x [0, 1].

    Args:
        matrix: of random frequencies (2, F), from the checkpoint.
    """
    with torch.autocast(places.device.type, enabled=False):  # sines of large angles
        angles = 2 * math.pi * ((2 * places - 1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def pixel_centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return the places (h, w, 2) of the centres of an image's pixels."""
    y, x = ((torch.arange(size, device=device) + 0.5) / size for size in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def encode_grid(height: int, width: int, matrix: Tensor, kind: torch.dtype) -> Tensor:
    """Return the encoding (1, 2 F, h, w) of the pixel centres, not to be changed: it is computed once and kept.

    All folds have the matrix of their checkpoint, so that they share it.
    """
    if torch.compiler.is_compiling():  # a graph has no values yet
        return _encoded_grid(height, width, matrix, kind)
    return _kept_grid(height, width, tuple(matrix.flatten().tolist()), matrix.device, kind)


@functools.lru_cache(maxsize=4)
def _kept_grid(height: int, width: int, values: tuple[float, ...], device: torch.device, kind: torch.dtype) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # it may serve where gradients are asked for later
        return _encoded_grid(height, width, torch.tensor(values, device=device).view(2, -1), kind)


def _encoded_grid(height: int, width: int, matrix: Tensor, kind: torch.dtype) -> Tensor:
    encoding = encode_places(pixel_centres(height, width, matrix.device), matrix)
    return encoding.to(kind).permute(2, 0, 1)[None]
