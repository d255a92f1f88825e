"""Run the frozen encoder: over whole cases into the cache, or over a few inputs in memory."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import PLAIN, Encoding, Plan
from autosam_net.device import drawing_processes
from autosam_net.embedding import cache
from autosam_net.embedding.key import EmbeddingKey, embedding_key
from autosam_net.embedding.poses import put
from autosam_net.embedding.views import draw_views, view_seed
from autosam_net.encoders.encoder import Encoder, Precision, load_encoder, supports_bfloat16
from autosam_net.encoders.split import keep_lower
from autosam_net.errors import BusyError, CacheError, PlanError
from autosam_net.files import alone, remove_leftovers
from autosam_net.heads.pixels import fold_pixels
from autosam_net.parallel import map_cases
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case, load_record
from autosam_net.preprocessing.slices import TileGrid, count_inputs, label_inputs, rgb_inputs, tile_grid

log = logging.getLogger(__name__)
BATCH = {"cpu": 4, "cuda": 32}  # inputs per encoder pass; on a CPU more only costs memory, on a GPU less idles


@dataclass(frozen=True)
class EncoderSource:
    """A planned encoder that is loaded when first needed, so that a full cache costs no start-up."""

    encoding: Encoding
    device: str
    asked_precision: Precision | None = None

    @property
    def precision(self) -> Precision:
        """Return what the encoder computes in: what was asked for, or what suits this device."""
        return self.asked_precision or ("bfloat16" if supports_bfloat16(self.device) else "float32")

    def __reduce__(self) -> tuple[type[EncoderSource], tuple[Encoding, str, Precision]]:
        """Travel to other processes without the encoder, which is loaded there, in the same precision as here."""
        return EncoderSource, (self.encoding, self.device, self.precision)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder, or its part below `tuned_from`, loaded at the first call."""
        source = self.encoding.source
        encoder = load_encoder(source.encoder, source.input_size, source.weights_file, self.device, self.precision)
        if source.tuned_from is not None:
            keep_lower(encoder, source.tuned_from)
        return encoder

    @property
    def channels(self) -> int:
        """Return the channels of the embeddings, those of folded pixels among them."""
        return self.encoder.channels + self.encoding.source.folded_channels

    def encode(self, inputs: NDArray[np.float32]) -> torch.Tensor:
        """Return what heads get for inputs `(N, 3, S, S)` in [0, 1]: `(N, channels, h, w)`, on the device, float32."""
        return self.encode_tensor(torch.from_numpy(inputs).to(self.device))

    def encode_tensor(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what `encode` does; inputs in which nothing is, such as tiles of air in a CT, cost no encoder pass."""
        shown = inputs.flatten(1).any(dim=1)
        if shown.all():
            return self._encoded(inputs)
        embedding = self._empty.repeat(len(inputs), 1, 1, 1)
        if shown.any():
            embedding[shown] = self._encoded(inputs[shown])
        return embedding

    @functools.cached_property
    def _empty(self) -> torch.Tensor:
        """Return the embedding `(1, channels, h, w)` of an input of zeros."""
        size = self.encoding.source.input_size
        return self._encoded(torch.zeros(1, 3, size, size, device=self.device))

    def _encoded(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the embeddings; in halves of the batch where the GPU's memory is too small for the whole."""
        return run_in_memory(functools.partial(encode_inputs, self.encoder, encoding=self.encoding.source), inputs)


def run_in_memory(network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Return `network(*inputs)`, from halves of the batch where the GPU's memory is too small for the whole."""
    try:
        return network(*inputs)
    except torch.cuda.OutOfMemoryError:
        if len(inputs[0]) == 1:
            raise
    torch.cuda.empty_cache()  # outside the except clause, which holds the failed pass
    halves = zip(*(part.tensor_split(2) for part in inputs), strict=True)
    return torch.cat([run_in_memory(network, *half) for half in halves])


def encode_inputs(encoder: nn.Module, images: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the embeddings `(N, C, h, w)` of images `(N, 3, S, S)`, with their folded pixels where planned."""
    embedding: torch.Tensor = encoder(images)
    if not encoding.pixels:
        return embedding
    pixels = fold_pixels(images[:, encoding.distinct_channels].to(embedding), embedding.shape[-1])
    return torch.cat([embedding, pixels], dim=1)


def embed_dataset(
    dataset: DatasetSpec,
    plan: Plan,
    folders: Folders | None = None,
    cases: Sequence[str] | None = None,
    views: int = 1,
    device: str = "cpu",
) -> list[cache.CachedEmbedding]:
    """Return the embeddings of preprocessed cases, computing what the cache lacks.

    Args:
        cases: names; all preprocessed cases if None.
        views: number of views of every slice; view 0 is the plain one.

    Raises:
        PlanError: a case has not been preprocessed.
        WeightsError: the encoder's weights are missing.
    """
    folders = folders or find_folders()
    names = list(cases) if cases is not None else preprocessed_cases(dataset, folders)
    return _Embeddings.of(dataset, plan, folders, device).embed(names, [(view, PLAIN) for view in range(views)])


def embed_in_time(
    dataset: DatasetSpec, plan: Plan, folders: Folders, cases: Sequence[str], views: int, device: str, until: float
) -> int:
    """Encode preprocessed cases view after view, where the cache lacks them, and return how many views there are.

    Args:
        views: how many of every slice are wanted; as many as a head needs are made in any case.
        until: of the monotonic clock, in seconds. Another view is only made if it is likely to be ready by
            then, going by the cases before.

    Raises:
        PlanError: a case has not been preprocessed.
        WeightsError: the encoder's weights are missing.
    """
    embeddings = _Embeddings.of(dataset, plan, folders, device)
    least, pace = plan.encoding.least_views, 0.0
    for view in range(views):
        found = embeddings.look_up(cases, [(view, PLAIN)])
        missing = [key for key, entry in found.items() if entry is None]
        if view >= least and missing:
            if not pace:  # the first one may have to wait for the encoder to be loaded
                embeddings.fill(missing[:1])
                pace, missing = _seconds_each(embeddings.fill, missing[1:2]), missing[2:]
            if time.monotonic() + pace * len(missing) > until:
                return view
        pace = _seconds_each(embeddings.fill, missing) or pace
    return views


def embed_poses(
    dataset: DatasetSpec, plan: Plan, folders: Folders, cases: Sequence[str], poses: Sequence[str], device: str
) -> list[dict[str, cache.CachedEmbedding]]:
    """Return pose -> embeddings of the plain view of each case, computing what the cache lacks.

    Raises:
        PlanError: a case has not been preprocessed.
        WeightsError: the encoder's weights are missing.
    """
    entries = _Embeddings.of(dataset, plan, folders, device).embed(cases, [(0, pose) for pose in poses])
    rows = (entries[start : start + len(poses)] for start in range(0, len(entries), len(poses)))
    return [dict(zip(poses, row, strict=True)) for row in rows]


def _seconds_each(fill: Callable[[Sequence[EmbeddingKey]], object], missing: Sequence[EmbeddingKey]) -> float:
    """Fill the cache, and return how long an entry took; 0 where nothing was missing."""
    begin = time.monotonic()
    fill(missing)
    return (time.monotonic() - begin) / len(missing) if missing else 0.0


@dataclass(frozen=True)
class _Embeddings:
    """The cached embeddings of a data set, and what computes those that are missing.

    Attributes:
        root: the folder of the cache.
        cases: the folder of the preprocessed cases.
        outside: label value of the pixels that pad a slice smaller than the input.
    """

    root: Path
    cases: Path
    source: EncoderSource
    outside: int

    @classmethod
    def of(cls, dataset: DatasetSpec, plan: Plan, folders: Folders, device: str) -> _Embeddings:
        root, cases = embeddings_folder(dataset, folders), cases_folder(dataset, folders)
        return cls(root, cases, EncoderSource(plan.encoding, device), plan.label_set.ignore or 0)

    def embed(self, names: Sequence[str], variants: Sequence[tuple[int, str]]) -> list[cache.CachedEmbedding]:
        """Return the embeddings of each case's variants, given as (view, pose)."""
        found = self.look_up(names, variants)
        found.update(self.fill([key for key, entry in found.items() if entry is None]))
        return [entry for entry in found.values() if entry is not None]

    def look_up(
        self, names: Sequence[str], variants: Sequence[tuple[int, str]]
    ) -> dict[EmbeddingKey, cache.CachedEmbedding | None]:
        """Return what is there of each case's variants, None for what is missing."""
        contents = {name: load_record(self.cases / name).key for name in names}
        wanted = [
            embedding_key(name, content, self.source.encoding, self.source.precision, view, pose)
            for name, content in contents.items()
            for view, pose in variants
        ]
        # one process, since the encoder itself takes all cores; a cluster takes the views of all cases side by side
        look = functools.partial(_open_or_forget, self.root)
        found = map_cases(look, wanted, "verify the cache", 1, _in_words, unit="view")
        log.debug("%s: %d of %d views are missing", self.root, found.count(None), len(wanted))
        return dict(zip(wanted, found, strict=True))

    def fill(self, missing: Sequence[EmbeddingKey]) -> dict[EmbeddingKey, cache.CachedEmbedding | None]:
        """Return the entries that were missing, computed here or by another process."""
        for folder in {cache.entry_folder(self.root, key).parent for key in missing}:
            remove_leftovers(folder)
        compute = functools.partial(
            _embed_or_open, root=self.root, cases=self.cases, source=self.source, outside=self.outside
        )
        return _encode_shared(compute, missing, f"encode ({self.source.encoding.source.encoder})")


def _encode_shared(
    compute: Callable[..., cache.CachedEmbedding | None], missing: Sequence[EmbeddingKey], step: str
) -> dict[EmbeddingKey, cache.CachedEmbedding | None]:
    """Return the entries that were missing, shared with other processes that need them, as trainings of folds do.

    What another process has in hand is passed over and waited for at the end: in the same order, each would wait for
    the other at every entry.
    """
    encode = functools.partial(map_cases, workers=1, name=_in_words, unit="view")
    entries = dict(zip(missing, encode(functools.partial(_unless_busy, compute), missing, step), strict=True))
    if busy := [key for key, entry in entries.items() if entry is None]:
        entries.update(zip(busy, encode(compute, busy, f"{step}, what others had in hand"), strict=True))
    return entries


def _unless_busy(
    compute: Callable[..., cache.CachedEmbedding | None], key: EmbeddingKey
) -> cache.CachedEmbedding | None:
    """Return an entry that was missing; None where another process is making it."""
    try:
        return compute(key, refusal="another process is encoding it")
    except BusyError:
        return None


def _embed_or_open(
    key: EmbeddingKey, root: Path, cases: Path, source: EncoderSource, outside: int, refusal: str | None = None
) -> cache.CachedEmbedding | None:
    """Return an entry that was missing; by now another process may have made it.

    Args:
        refusal: what to say instead of waiting while another process makes it.

    Raises:
        BusyError: it does, and `refusal` is given.
    """
    with alone(cache.entry_folder(root, key), refusal):
        if (entry := cache.open_entry(root, key)) is not None:
            return entry
        embed_case(root, key, _case_of(key, cases / key.case), source, outside)
        return cache.open_entry(root, key)


def _case_of(key: EmbeddingKey, folder: Path) -> PreprocessedCase:
    """Return a preprocessed case, of which another process must not have made another one since the key was drawn up.

    Raises:
        PlanError: it has.
    """
    case = load_case(folder)
    if load_record(folder).key != key.content:
        raise PlanError(f"{folder}: was preprocessed anew meanwhile. Repeat the command.")
    return case


def embed_case(root: Path, key: EmbeddingKey, case: PreprocessedCase, source: EncoderSource, outside: int) -> None:
    """Compute one view of one case and write it to the cache; without labels, label maps of zeros.

    Args:
        outside: label value of the pixels that pad a slice smaller than the input.
    """
    grid = tile_grid(case.properties.shape[1:], source.encoding)
    count = count_inputs(case.properties.shape, source.encoding)
    encoder = source.encoder
    side = encoder.input_size // encoder.stride
    cache.write_entry(
        root,
        key,
        shape=(count, source.channels, side, side),
        label_shape=(count, encoder.input_size, encoder.input_size),
        label_type=_labels_of(case).dtype,
        batches=_encoded_batches(case, grid, key, source, outside),
    )


def embeddings_folder(dataset: DatasetSpec, folders: Folders) -> Path:
    """Return the folder of the data set's embedding cache."""
    return folders.preprocessed / dataset.name / "embeddings"


def preprocessed_cases(dataset: DatasetSpec, folders: Folders) -> list[str]:
    """Return the names of all preprocessed cases, sorted."""
    return sorted(file.parent.name for file in cases_folder(dataset, folders).glob("*/case.json"))


def batch_size(device: str) -> int:
    """Return how many inputs the encoder takes at once on the device."""
    return BATCH.get(device.split(":")[0], BATCH["cpu"])


def batches_of(count: int, device: str) -> Iterator[range]:
    """Yield 0 .. count - 1 in runs of the size that the device takes at once."""
    size = batch_size(device)
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _encoded_batches(
    case: PreprocessedCase, grid: TileGrid, key: EmbeddingKey, source: EncoderSource, outside: int
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.integer]]]:
    case_labels = _labels_of(case)
    for indices in batches_of(count_inputs(case.properties.shape, source.encoding), source.device):
        images = rgb_inputs(case.image, grid, source.encoding.rgb, indices)
        labels = label_inputs(case_labels, grid, indices, outside)
        images, labels = put(images, key.pose), put(labels, key.pose)
        if key.view > 0:
            seeds = [view_seed(case.properties.name, index, key.view) for index in indices]
            processes = drawing_processes(source.device)
            images, labels = draw_views(images, labels, seeds, source.encoding.rotation, processes)
        yield source.encode(images).to(torch.float16).cpu().numpy(), labels


def _in_words(key: EmbeddingKey) -> str:
    return f"{key.case}, view {key.view}" if key.pose == PLAIN else f"{key.case}, {key.pose}"


def _labels_of(case: PreprocessedCase) -> NDArray[np.integer]:
    return np.zeros(case.properties.shape, np.uint8) if case.labels is None else case.labels


def _open_or_forget(root: Path, key: EmbeddingKey) -> cache.CachedEmbedding | None:
    try:
        return cache.open_entry(root, key)
    except CacheError as error:
        log.warning("%s It is computed anew.", error)
        cache.remove_entry(cache.entry_folder(root, key))
        return None
