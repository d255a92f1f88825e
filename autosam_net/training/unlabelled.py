"""Learning from unlabelled cases: a trained head labels them, and goes on learning from what it is sure of.

Self-training: the pseudo-labels come from the mean over poses (`Plan.encoding.poses`) after post-processing, which is
better than what the head sees in any one pose (Radosavovic et al., "Data distillation", CVPR 2018); the head must give
them in each pose, from embeddings disturbed by CutMix (French et al., BMVC 2020) and the dropout of whole channels
(UniMatch, Yang et al., CVPR 2023). All of it happens on cached embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from autosam_net.arrays import save_array
from autosam_net.data.labels import LabelSet
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.poses import put
from autosam_net.errors import ModelError, PlanError
from autosam_net.files import atomic_file, sha256_of_files
from autosam_net.jsonio import load, sealed, write_json
from autosam_net.parallel import WHOLE, Part
from autosam_net.preprocessing.slices import TileGrid, label_inputs
from autosam_net.training.batches import Array, cut
from autosam_net.training.losses import SegmentationLoss
from autosam_net.training.sampling import SEEDS

CONFIDENCE = 0.8  # least probability, as the mean over poses, of a pixel's pseudo-label; others are left out
CHANNEL_DROPOUT = 0.5  # UniMatch's; the head's own comes on top
MIXED = 0.5  # part of the embeddings that another one is pasted into
PASTED_AREA = (0.05, 0.4)  # of the embedding
PASTED_RATIO = 2.5  # of the longer to the shorter side, at most
RATE = 0.5  # of the head's learning rate, since it is trained already


@dataclass(frozen=True)
class PseudoLabels:
    """The record beside the pseudo-labels of a case; `sha256` is that of their file."""

    case: str
    sha256: str


@dataclass(frozen=True)
class Lessons:
    """What a head learns from beside its labelled cases.

    Attributes:
        start: model.safetensors of the head that gave the pseudo-labels, whose training goes on.
        cases: the unlabelled cases.
        folder: with their pseudo-labels.
    """

    start: Path
    cases: tuple[str, ...]
    folder: Path

    def file(self, case: str) -> Path:
        """Return the .npy file of a case: `(Z, Y, X)` on the preprocessed grid, `unknown_value` where not sure."""
        return self.folder / f"{case}.npy"

    def read(self, case: str) -> NDArray[np.integer]:
        """Return the pseudo-labels of a case, mapped into memory.

        Raises:
            ModelError: they are missing, or not what was written for this case.
        """
        file = self.file(case)
        try:
            if load(PseudoLabels, file.with_suffix(".json")) == PseudoLabels(case, sha256_of_files([file])):
                return np.load(file, mmap_mode="r", allow_pickle=False)
        except (PlanError, FileNotFoundError):
            pass
        raise ModelError(f"{file}: missing or damaged. Give the same command again; it is made anew.")

    def write(self, case: str, labels: NDArray[np.integer]) -> None:
        """Write the pseudo-labels of a case, and after them their record."""
        with atomic_file(self.file(case)) as temporary:
            save_array(temporary, labels)
        record = PseudoLabels(case, sha256_of_files([self.file(case)]))
        write_json(self.file(case).with_suffix(".json"), sealed(record))

    def holds(self, case: str) -> bool:
        """Return whether `read` would succeed."""
        try:
            self.read(case)
        except ModelError:
            return False
        return True


def unknown_value(labels: LabelSet) -> int:
    """Return the value of pixels without a pseudo-label: the first that no label has."""
    return max(labels.allowed_values) + 1


@dataclass(frozen=True)
class PseudoLabelledCase:
    """One unlabelled case: pose -> embeddings, and pseudo-labels `(Z, Y, X)` on the grid of its inputs."""

    entries: Mapping[str, CachedEmbedding]
    labels: NDArray[np.integer]
    grid: TileGrid


class PseudoLabelledBatches:
    """Random batches of unlabelled inputs, each in a random pose, with their pseudo-labels.

    Args:
        crop: share of the inputs' side that is shown of each, somewhere.
    """

    def __init__(self, cases: Sequence[PseudoLabelledCase], unknown: int, crop: float = 1.0) -> None:
        self.unknown, self.crop = unknown, crop
        self.rows = [(case, row) for case in cases for row in range(len(case.labels) * len(case.grid.origins))]
        self.poses = list(cases[0].entries)

    def draw(self, rng: np.random.Generator, size: int, share: Part = WHOLE) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings `(size, C, h, w)` float32 and label values `(size, S, S)` int64; see `BatchSource`."""
        drawn = share.of([self.rows[index] for index in rng.integers(len(self.rows), size=size)])
        poses = share.of([self.poses[index] for index in rng.integers(len(self.poses), size=size)])
        seeds = share.of(list(rng.integers(SEEDS, size=size)))
        parts = [self._part(case, row, pose, seed) for (case, row), pose, seed in zip(drawn, poses, seeds, strict=True)]
        embeddings, labels = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return torch.from_numpy(embeddings).float(), torch.from_numpy(labels.astype(np.int64))

    def _part(self, case: PseudoLabelledCase, row: int, pose: str, seed: int) -> tuple[Array, Array]:
        embedding = case.entries[pose].embedding.row(row)
        labels = put(label_inputs(case.labels, case.grid, [row], self.unknown)[0], pose)
        return cut(np.random.default_rng(seed), self.crop, embedding, labels)


def unlabelled_loss(
    head: nn.Module,
    embedding: torch.Tensor,
    labels: torch.Tensor,
    loss_function: SegmentationLoss,
    rng: np.random.Generator,
    mixed_precision: bool,
    channels: int,
) -> torch.Tensor:
    """Return how far the head is from pseudo-labels, given disturbed embeddings, a scalar.

    Args:
        embedding: `(B, C, h, w)` of unlabelled inputs; behind its `channels` come folded pixels, if any.
        labels: `(B, S, S)`; values that no label has count for nothing.
    """
    embedding, labels = paste(rng, embedding, labels[:, None])
    seen, pixels = embedding[:, :channels], embedding[:, channels:]
    disturbed = torch.cat([functional.dropout2d(seen, CHANNEL_DROPOUT), pixels], dim=1)
    with torch.autocast(embedding.device.type, torch.bfloat16, enabled=mixed_precision):
        logits = head(disturbed)
    labels = labels[:, 0]
    known = labels < len(loss_function.members)
    targets = loss_function.members[labels.where(known, 0)].movedim(-1, 1)
    return loss_function.compare(logits, targets, known.float())


def paste(rng: np.random.Generator, *maps: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps with a random rectangle of half of the images replaced by another image's, alike in all maps.

    Args:
        maps: `(B, channels, S, S)`; each S is a multiple of the first map's.
    """
    count, _, side, _ = maps[0].shape
    others, results = rng.permutation(count), [entry.clone() for entry in maps]
    for image in range(count):
        if rng.random() >= MIXED:
            continue
        rows, columns = _rectangle(rng, side)
        for source, result in zip(maps, results, strict=True):
            scale = source.shape[-1] // side
            y, x = (slice(part.start * scale, part.stop * scale) for part in (rows, columns))
            result[image, :, y, x] = source[others[image], :, y, x]
    return results


def _rectangle(rng: np.random.Generator, side: int) -> tuple[slice, slice]:
    area = rng.uniform(*PASTED_AREA) * side**2
    ratio = np.exp(rng.uniform(-np.log(PASTED_RATIO), np.log(PASTED_RATIO)))
    lengths = [int(np.clip(round(np.sqrt(part)), 1, side)) for part in (area * ratio, area / ratio)]
    starts = [int(rng.integers(side - length + 1)) for length in lengths]
    rows, columns = (slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    return rows, columns
