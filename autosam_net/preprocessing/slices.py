"""The encoder's square three-channel inputs: the one way from a preprocessed case to the encoder.

A slice larger than the input is cut into overlapping tiles, a smaller one is centred on black. The inputs of a case
are numbered `slice * tiles + tile`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.encoding import Encoding, RgbSource


@dataclass(frozen=True)
class TileGrid:
    """The tiles of every slice of a case.

    Attributes:
        shape: pixels (Y, X) of a slice.
        size: pixels of a tile's side.
        origins: upper left corner (y, x) of each tile; negative where the slice is smaller than the tile.
    """

    shape: tuple[int, int]
    size: int
    origins: tuple[tuple[int, int], ...]

    def window(self, tile: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where the tile lies in the slice, and the same pixels inside the tile."""
        inside, outside = [], []
        for origin, length in zip(self.origins[tile], self.shape, strict=True):
            start, stop = max(origin, 0), min(origin + self.size, length)
            outside.append(slice(start, stop))
            inside.append(slice(start - origin, stop - origin))
        return (outside[0], outside[1]), (inside[0], inside[1])


def tile_grid(shape: tuple[int, int], encoding: Encoding) -> TileGrid:
    """Return the fewest, evenly spread tiles that cover a slice of `shape` with at least the planned overlap."""
    rows, columns = (_origins(length, encoding.input_size, encoding.overlap) for length in shape)
    return TileGrid(shape, encoding.input_size, tuple((row, column) for row in rows for column in columns))


def count_inputs(shape: tuple[int, int, int], encoding: Encoding) -> int:
    """Return the number of encoder inputs of a preprocessed case of `shape` (Z, Y, X)."""
    return shape[0] * len(tile_grid(shape[1:], encoding).origins)


def _origins(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [-((size - length) // 2)]
    count = math.ceil((length - size) / (size * (1.0 - overlap))) + 1
    return [round(index * (length - size) / (count - 1)) for index in range(count)]


def rgb_inputs(
    image: NDArray[np.float32], grid: TileGrid, rgb: Sequence[RgbSource], indices: Sequence[int]
) -> NDArray[np.float32]:
    """Return the encoder inputs `(N, 3, S, S)` with the given numbers, of an image `(C, Z, Y, X)` in [0, 1].

    A neighbour beyond the first or last slice is the first or last slice itself.
    """
    inputs = np.zeros((len(indices), 3, grid.size, grid.size), np.float32)
    for row, index in enumerate(indices):
        position, tile = divmod(index, len(grid.origins))
        outside, inside = grid.window(tile)
        for place, source in enumerate(rgb):
            neighbour = min(max(position + source.offset, 0), image.shape[1] - 1)
            inputs[row, place][inside] = image[source.channel, neighbour][outside]
    return inputs


def label_inputs(
    labels: NDArray[np.integer], grid: TileGrid, indices: Sequence[int], outside_value: int
) -> NDArray[np.integer]:
    """Return the label maps `(N, S, S)` that belong to `rgb_inputs`; pixels beyond the slice get `outside_value`."""
    tiles = np.full((len(indices), grid.size, grid.size), outside_value, labels.dtype)
    for row, index in enumerate(indices):
        position, tile = divmod(index, len(grid.origins))
        outside, inside = grid.window(tile)
        tiles[row][inside] = labels[position][outside]
    return tiles
