"""Learning from unlabelled cases: a teacher labels them, and the head must agree on disturbed embeddings of them.

FixMatch's confident pseudo-labels (Sohn et al., NeurIPS 2020) by a mean teacher (Tarvainen and Valpola, NeurIPS 2017),
with CutMix (French et al., BMVC 2020) and the dropout of whole channels (UniMatch, Yang et al., CVPR 2023) as
disturbances. All of it happens on cached embeddings, so that an unlabelled slice is encoded once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.training.losses import SegmentationLoss

CONFIDENCE = 0.9  # least probability of a pixel's pseudo-label; others are left out
CHANNEL_DROPOUT = 0.5  # UniMatch's; the head's own comes on top
MIXED = 0.5  # part of the embeddings that another one is pasted into
PASTED_AREA = (0.05, 0.4)  # of the embedding
PASTED_RATIO = 2.5  # of the longer to the shorter side, at most
MEMORY = 0.99  # of the teacher: the part of its weights that one step leaves
SUPERVISED = 1 / 6  # part of the training that passes before the teacher is worth listening to
RISE = 1 / 9  # part of the training in which its say then rises to that of the labels
LENGTH = 4  # times as many epochs as without unlabelled cases
COST = 2.5  # of an iteration that learns from the teacher as well, in iterations that do not


class UnlabelledBatches:
    """Random batches of embeddings of cases whose labels nobody reads."""

    def __init__(self, entries: Sequence[CachedEmbedding]) -> None:
        self.rows = [(entry.embedding, row) for entry in entries for row in range(entry.embedding.shape[0])]

    def draw(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """Return embeddings `(size, C, h, w)` float32."""
        drawn = [self.rows[index] for index in rng.integers(len(self.rows), size=size)]
        return torch.from_numpy(np.stack([embedding.row(row) for embedding, row in drawn])).float()


def make_teacher(head: nn.Module) -> nn.Module:
    """Return a copy of a head that predicts and is not trained."""
    return copy.deepcopy(head).eval().requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, head: nn.Module, iteration: int) -> None:
    """Move the teacher's weights towards the head's: their mean over the last 1 / (1 - `MEMORY`) iterations."""
    memory = min(MEMORY, (iteration + 1) / (iteration + 10))
    for kept, fresh in zip(teacher.parameters(), head.parameters(), strict=True):
        kept.lerp_(fresh, 1.0 - memory)
    for statistic, latest in zip(teacher.buffers(), head.buffers(), strict=True):
        statistic.copy_(latest)


def teacher_weight(iteration: int, total: int) -> float:
    """Return the weight of the unlabelled part of the loss, 0 to 1."""
    return min(1.0, max(0.0, (iteration / total - SUPERVISED) / RISE))


def consistency_loss(
    head: nn.Module,
    teacher: nn.Module,
    embedding: torch.Tensor,
    loss_function: SegmentationLoss,
    rng: np.random.Generator,
    mixed_precision: bool,
) -> torch.Tensor:
    """Return how far the head is from the teacher's confident pixels, a scalar.

    Args:
        embedding: `(B, C, h, w)` of unlabelled inputs.
    """
    with torch.autocast(embedding.device.type, torch.bfloat16, enabled=mixed_precision):
        with torch.no_grad():
            targets, confidence = loss_function.pseudo_targets(_half_size_logits(teacher, embedding))
            known = (confidence > CONFIDENCE).float()
            embedding, targets, known = paste(rng, embedding, targets, known[:, None])
            embedding = functional.dropout2d(embedding, CHANNEL_DROPOUT)
        logits = _half_size_logits(head, embedding)
    return loss_function.compare(logits, targets, known[:, 0])


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


def _half_size_logits(head: Any, embedding: torch.Tensor) -> torch.Tensor:
    """Return logits of half the side, which cost a quarter and are fine enough, where a head can give them."""
    size = getattr(head, "logits_size", 0)
    if size // 2 < embedding.shape[-1]:
        return head(embedding)
    head.logits_size = size // 2
    try:
        return head(embedding)
    finally:
        head.logits_size = size
