"""Random batches of encoder inputs, augmented anew whenever they are drawn, for training without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import Encoding
from autosam_net.embedding.views import draw_view
from autosam_net.parallel import WHOLE, Part, progress
from autosam_net.preprocessing.preprocess import load_case, map_case
from autosam_net.preprocessing.slices import TileGrid, label_inputs, rgb_inputs, tile_grid
from autosam_net.training.batches import Batch, cut, label_tensor
from autosam_net.training.sampling import FOREGROUND_SHARE, BalancedDraw


@dataclass(frozen=True)
class _Input:
    """One encoder input: the folder of its case, the case's tiles, and its number there."""

    folder: Path
    grid: TileGrid
    index: int


class FreshSlices:
    """Random augmented encoder inputs with their labels; a `BatchSource` of images in place of embeddings.

    Only the drawn slices are read from disk, and no file stays open.
    """

    def __init__(self, folders: Sequence[Path], labels: LabelSet, encoding: Encoding) -> None:
        """Verify the cases and see which labels lie where.

        Args:
            folders: of preprocessed cases with labels.

        Raises:
            PlanError: a case is not preprocessed, or damaged.
        """
        self.encoding, self.outside = encoding, labels.ignore or 0
        self.inputs: list[_Input] = []
        present: list[tuple[int, ...]] = []
        for folder in progress(folders, "read labels", len(folders), name=lambda folder: folder.name):
            case = load_case(folder)
            grid = tile_grid(case.properties.shape[1:], encoding)
            for index in range(case.properties.shape[0] * len(grid.origins)):
                self.inputs.append(_Input(folder, grid, index))
                present.append(tuple(np.unique(self._labels(case, grid, index)).tolist()))
        self.rows = BalancedDraw(present, labels)

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return images `(B, 3, S, S)` float32 in [0, 1] and label values `(B, S, S)`; see `BatchSource`."""
        views = [self._view(self.inputs[one.number], one.seed) for one in share.of(self.rows.draw(rng, size))]
        images, labels = (np.stack(part) for part in zip(*views, strict=True))
        return torch.from_numpy(images), label_tensor(labels)

    def _view(self, chosen: _Input, seed: int) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        case = map_case(chosen.folder)
        image = rgb_inputs(case.image, chosen.grid, self.encoding.rgb, [chosen.index])[0]
        return draw_view(image, self._labels(case, chosen.grid, chosen.index), seed, self.encoding.rotation)

    def _labels(self, case: PreprocessedCase, grid: TileGrid, index: int) -> NDArray[np.integer]:
        assert case.labels is not None, f"{case.properties.name} is trained on, so it has labels"
        return label_inputs(case.labels, grid, [index], self.outside)[0]


def cut_batch(
    rng: np.random.Generator, share: float, embeddings: torch.Tensor, labels: torch.Tensor, foreground: Sequence[int]
) -> Batch:
    """Return a random part of each embedding and label map, `share` of their sides, most often around some foreground.

    Args:
        embeddings: `(B, C, h, w)`.
        labels: `(B, S, S)`, on the CPU.
    """
    parts = []
    for embedding, values in zip(embeddings, labels, strict=True):
        wanted = foreground if rng.random() < FOREGROUND_SHARE else ()
        parts.append(cut(rng, share, embedding, values, wanted))
    pairs = zip(*parts, strict=True)
    return torch.stack(next(pairs)), torch.stack(next(pairs))
