"""Random batches of encoder inputs, augmented anew whenever they are drawn, for training without a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.encoding import Encoding
from autosam_net.data.labels import LabelSet
from autosam_net.embedding.views import draw_view
from autosam_net.parallel import WHOLE, Part, progress
from autosam_net.preprocessing.preprocess import load_case, map_case
from autosam_net.preprocessing.slices import TileGrid, label_inputs, rgb_inputs, tile_grid
from autosam_net.training.batches import Batch, cut, label_tensor
from autosam_net.training.sampling import FOREGROUND_SHARE, SEEDS, BalancedDraw


@dataclass(frozen=True)
class _Input:
    """One encoder input: the folder of its case, the case's tiles, and its number there."""

    folder: Path
    grid: TileGrid
    index: int


def _inputs(folders: Sequence[Path], encoding: Encoding, title: str) -> Iterator[tuple[PreprocessedCase, _Input]]:
    """Yield all encoder inputs of preprocessed cases, which are verified.

    Raises:
        PlanError: a case is not preprocessed, or damaged.
    """
    for folder in progress(folders, title, len(folders), name=lambda folder: folder.name):
        case = load_case(folder)
        grid = tile_grid(case.properties.shape[1:], encoding)
        for index in range(case.properties.shape[0] * len(grid.origins)):
            yield case, _Input(folder, grid, index)


def _image(case: PreprocessedCase, chosen: _Input, encoding: Encoding) -> NDArray[np.float32]:
    return rgb_inputs(case.image, chosen.grid, encoding.rgb, [chosen.index])[0]


class UnlabelledSlices:
    """Random augmented encoder inputs without labels; only the drawn slices are read, and no file stays open."""

    def __init__(self, folders: Mapping[Path, str], encoding: Encoding) -> None:
        """Verify the cases.

        Args:
            folders: of preprocessed cases -> the patient of each.

        Raises:
            PlanError: a case is not preprocessed, or damaged.
        """
        self.encoding = encoding
        self.inputs = [one for _, one in _inputs(list(folders), encoding, "verify cases")]
        self.of_patient: dict[str, list[int]] = {}
        for number, one in enumerate(self.inputs):
            self.of_patient.setdefault(folders[one.folder], []).append(number)

    def draw(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """Return images `(size, 3, S, S)` float32 in [0, 1], every input of all cases as likely as any other."""
        return self._views(rng, rng.integers(len(self.inputs), size=size).tolist())

    def draw_pairs(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """Return two views of each of `size` inputs, `(2 * size, 3, S, S)`: the first of all, then the second of all.

        They are of different patients where there are enough, since neighbouring slices show the same.
        """
        patients = sorted(self.of_patient)
        if size > len(patients):
            numbers = rng.choice(len(self.inputs), size, replace=False).tolist()
        else:
            drawn = rng.choice(len(patients), size, replace=False)
            numbers = [int(rng.choice(self.of_patient[patients[patient]])) for patient in drawn]
        return self._views(rng, [*numbers, *numbers])

    def _views(self, rng: np.random.Generator, numbers: Sequence[int]) -> torch.Tensor:
        seeds = rng.integers(SEEDS, size=len(numbers)).tolist()
        views = [self._view(self.inputs[number], seed) for number, seed in zip(numbers, seeds, strict=True)]
        return torch.from_numpy(np.stack(views))

    def _view(self, chosen: _Input, seed: int) -> NDArray[np.float32]:
        image = _image(map_case(chosen.folder), chosen, self.encoding)
        no_labels = np.zeros(image.shape[1:], np.uint8)
        return draw_view(image, no_labels, seed, self.encoding.rotation)[0]


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
        for case, one in _inputs(folders, encoding, "read labels"):
            self.inputs.append(one)
            present.append(tuple(np.unique(self._labels(case, one.grid, one.index)).tolist()))
        self.rows = BalancedDraw(present, labels)

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> Batch:
        """Return images `(B, 3, S, S)` float32 in [0, 1] and label values `(B, S, S)`; see `BatchSource`."""
        views = [self._view(self.inputs[one.number], one.seed) for one in share.of(self.rows.draw(rng, size))]
        images, labels = (np.stack(part) for part in zip(*views, strict=True))
        return torch.from_numpy(images), label_tensor(labels)

    def _view(self, chosen: _Input, seed: int) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        case = map_case(chosen.folder)
        image = _image(case, chosen, self.encoding)
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
