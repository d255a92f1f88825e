"""Heads on embeddings to class probabilities, slice by slice, so that memory never holds all classes of a volume."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.encoding import PLAIN
from autosam_net.data.labels import LabelSet
from autosam_net.data.prompts import Prompt
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.poses import point_in, put, put_back
from autosam_net.embedding.source import BATCH, EncoderSource, batches_of, run_in_memory
from autosam_net.memory import demand_free_memory
from autosam_net.preprocessing.prompts import mapped_outline, stack_tokens, tile_outlines
from autosam_net.preprocessing.slices import TileGrid, count_inputs, rgb_inputs, tile_grid

PROBABILITY_BYTES = 12  # float32: logits, probabilities and their mean

EmbeddingReader = Callable[[Sequence[int]], torch.Tensor]
"""Takes numbers of encoder inputs, returns their embeddings `(N, C, h, w)` on the device."""

Reader = Callable[[Sequence[int]], tuple[torch.Tensor, ...]]
"""Takes numbers of encoder inputs, returns what heads take: their embeddings, and prompts where heads need them."""

PosedReader = tuple[Reader, str]
"""With the pose in which its embeddings are."""


def cached_reader(entry: CachedEmbedding, device: str) -> EmbeddingReader:
    """Return a reader of embeddings that lie in the cache."""
    return lambda indices: torch.from_numpy(entry.embedding.rows(indices)).to(device).float()


def encoding_reader(case: PreprocessedCase, grid: TileGrid, source: EncoderSource, pose: str) -> EmbeddingReader:
    """Return a reader that runs the encoder on inputs put in a pose."""

    def read(indices: Sequence[int]) -> torch.Tensor:
        return source.encode(put(rgb_inputs(case.image, grid, source.encoding.rgb, indices), pose))

    return read


def _for_heads(read: EmbeddingReader, source: EncoderSource) -> EmbeddingReader:
    """Return a reader in the layout and type that heads compute in, so that not every head has to turn and round them.

    An encoder that computed in bfloat16 loses nothing by it; one that is tuned with its head takes images in float32.
    """
    half = source.precision == "bfloat16" and not source.encoding.tuned
    kind = torch.bfloat16 if half else torch.float32
    return lambda indices: read(indices).to(kind, memory_format=torch.channels_last)


def prompting_reader(
    prompts: Sequence[Prompt], labels: LabelSet, grid: TileGrid, device: str, pose: str
) -> EmbeddingReader:
    """Return a reader of the tokens `(N, classes, contours, tokens, 3)` of prompts in preprocessed pixels."""
    point = point_in(pose, grid.size)

    def read(indices: Sequence[int]) -> torch.Tensor:
        inputs = (tile_outlines(prompts, grid, index) for index in indices)
        put_in_pose = [
            {name: tuple(mapped_outline(one, point) for one in contours) for name, contours in outlines.items()}
            for outlines in inputs
        ]
        return torch.from_numpy(stack_tokens(put_in_pose, labels)).to(device)

    return read


def slice_probabilities(
    case: PreprocessedCase,
    heads: Sequence[nn.Module],
    labels: LabelSet,
    source: EncoderSource,
    cached: Mapping[str, CachedEmbedding] | None = None,
    poses: Sequence[str] = (),
    prompts: Sequence[Prompt] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield for every slice the mean probabilities of all heads `(outputs, Y, X)` on the cropped raw grid.

    All heads work on the same embedding: an ensemble costs one encoder pass, and one more for each pose.

    Args:
        cached: pose -> embeddings of this case that are at hand.
        poses: that are averaged with the plain one, for test-time augmentation.
        prompts: in preprocessed pixels, for heads that need them.
    """
    slices = _slices(case, heads, labels, source, posed_readers(case, labels, source, cached, poses, prompts))
    return (resized(one, case.properties.cropped_shape[1:]) for one in slices)


def probabilities_of_each(
    case: PreprocessedCase,
    heads: Sequence[nn.Module],
    labels: LabelSet,
    source: EncoderSource,
    cached: Mapping[str, CachedEmbedding] | None = None,
    poses: Sequence[str] = (),
    prompts: Sequence[Prompt] | None = None,
) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Yield for every slice the probabilities of each head `(outputs, Y, X)` on the preprocessed grid.

    Their mean is to be `resized`, as `slice_probabilities` does it: once, not for every head. The heads go side by
    side: each batch of embeddings is read or encoded once, and held until the last head has the slice for which the
    first head asked for it.
    """
    readers = posed_readers(case, labels, source, cached, poses, prompts)
    tiles = len(tile_grid(case.properties.shape[1:], source.encoding).origins)
    held = len(list(batches_of(tiles, source.device)))  # no slice asks for more new batches
    shared = [(functools.lru_cache(maxsize=held)(read), pose) for read, pose in readers]
    return zip(*(_slices(case, [head], labels, source, shared) for head in heads), strict=True)


def posed_readers(
    case: PreprocessedCase,
    labels: LabelSet,
    source: EncoderSource,
    cached: Mapping[str, CachedEmbedding] | None,
    poses: Sequence[str],
    prompts: Sequence[Prompt] | None,
) -> list[PosedReader]:
    """Return the reader of what heads take of a case in the plain pose, and one a pose."""
    grid, entries = tile_grid(case.properties.shape[1:], source.encoding), cached or {}
    posed: list[PosedReader] = []
    for pose in (PLAIN, *poses):
        entry = entries.get(pose)
        embedding = encoding_reader(case, grid, source, pose) if entry is None else cached_reader(entry, source.device)
        readers = [_for_heads(embedding, source)]
        if prompts is not None:
            readers.append(prompting_reader(prompts, labels, grid, source.device, pose))
        posed.append((functools.partial(_read_all, readers), pose))
    return posed


def _read_all(readers: Sequence[EmbeddingReader], indices: Sequence[int]) -> tuple[torch.Tensor, ...]:
    return tuple(read(indices) for read in readers)


@torch.no_grad()
def _slices(
    case: PreprocessedCase,
    heads: Sequence[nn.Module],
    labels: LabelSet,
    source: EncoderSource,
    readers: Sequence[PosedReader],
) -> Iterator[NDArray[np.float32]]:
    grid = tile_grid(case.properties.shape[1:], source.encoding)
    pixels = max(BATCH["cpu"] * grid.size**2, math.prod(case.properties.cropped_shape[1:]) + math.prod(grid.shape))
    demand_free_memory(
        f"{case.properties.name}: {labels.outputs} maps of probabilities of a slice",
        labels.outputs * pixels * PROBABILITY_BYTES / 2**20,
        "Give the machine more memory.",
    )
    batches = batches_of(count_inputs(case.properties.shape, source.encoding), source.device)
    tiles = (_mean_probabilities(readers, indices, heads, labels, source) for indices in batches)
    yield from assemble_slices(tiles, grid)


def _mean_probabilities(
    readers: Sequence[PosedReader],
    indices: Sequence[int],
    heads: Sequence[nn.Module],
    labels: LabelSet,
    source: EncoderSource,
) -> torch.Tensor:
    total: torch.Tensor | None = None
    for read, pose in readers:
        inputs = read(indices)
        for head in heads:
            with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=source.precision == "bfloat16"):
                logits = run_in_memory(head, *inputs)
            logits = logits.to(torch.float32, memory_format=torch.contiguous_format)  # class by class, as it is resized
            probabilities = torch.sigmoid(logits) if labels.has_regions else torch.softmax(logits, 1)
            probabilities = put_back(probabilities, pose)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None, "a model has at least one head"
    return total.div_(len(readers) * len(heads))


def assemble_slices(batches: Iterable[Iterable[torch.Tensor]], grid: TileGrid) -> Iterator[NDArray[np.float32]]:
    """Yield the slices `(outputs, Y, X)`, each as soon as all its tiles are there.

    Args:
        batches: of the probabilities `(outputs, S, S)` of tiles, in the order of the encoder inputs.
    """
    weights = blending_weights(grid.size)
    waiting: list[torch.Tensor] = []
    for batch in batches:
        waiting += batch
        while len(waiting) >= len(grid.origins):
            canvas = blend(waiting[: len(grid.origins)], grid, weights.to(waiting[0].device))
            del waiting[: len(grid.origins)]
            yield canvas.cpu().numpy()


def blending_weights(size: int) -> torch.Tensor:
    """Return the weight `(S, S)` of a tile's pixels: a Gaussian of sigma S / 8 around its centre, as in nnU-Net."""
    distance = torch.arange(size) - (size - 1) / 2
    profile = torch.exp(-0.5 * (distance / (size / 8)) ** 2)
    return torch.outer(profile, profile).clamp(min=1e-4)


def blend(tiles: Sequence[torch.Tensor], grid: TileGrid, weights: torch.Tensor) -> torch.Tensor:
    """Return the slice `(outputs, Y, X)` that the tiles `(outputs, S, S)` cover, weighted where they overlap."""
    if len(tiles) == 1:
        _, (rows, columns) = grid.window(0)
        return tiles[0][:, rows, columns]
    canvas = tiles[0].new_zeros((len(tiles[0]), *grid.shape))
    coverage = tiles[0].new_zeros(grid.shape)
    for index, tile in enumerate(tiles):
        outside, inside = grid.window(index)
        canvas[..., outside[0], outside[1]] += (tile * weights)[..., inside[0], inside[1]]
        coverage[outside] += weights[inside]
    return canvas / coverage


def resized(maps: NDArray[np.float32], plane: tuple[int, ...]) -> NDArray[np.float32]:
    """Return maps `(outputs, y, x)` of a slice, interpolated bilinearly to a plane `(Y, X)` of the cropped raw grid."""
    if maps.shape[1:] == plane:
        return maps
    interpolated = functional.interpolate(torch.from_numpy(maps)[None], plane, mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = interpolated[0].numpy()
    return result
