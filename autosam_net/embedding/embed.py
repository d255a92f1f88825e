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

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.encoding import PLAIN
from autosam_net.data.plan import Plan
from autosam_net.device import drawing_processes
from autosam_net.embedding import cache
from autosam_net.embedding.key import EmbeddingKey, embedding_key
from autosam_net.embedding.poses import put
from autosam_net.embedding.source import EncoderSource, batches_of
from autosam_net.embedding.views import draw_views, view_seed
from autosam_net.errors import BusyError, CacheError, PlanError
from autosam_net.files import alone, remove_leftovers
from autosam_net.parallel import map_cases
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case, load_record
from autosam_net.preprocessing.slices import TileGrid, count_inputs, label_inputs, rgb_inputs, tile_grid

log = logging.getLogger(__name__)


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
) -> tuple[list[cache.CachedEmbedding], int]:
    """Return what `embed_dataset` does, of as many views as there can be in time, and how many these are.

    Args:
        views: how many of every slice are wanted; as many as a head needs are made in any case.
        until: of the monotonic clock, in seconds. Another view is only made if it is likely to be ready by
            then, going by the cases before.

    Raises:
        PlanError: a case has not been preprocessed.
        WeightsError: the encoder's weights are missing.
    """
    embeddings = _Embeddings.of(dataset, plan, folders, device)
    ready: list[list[cache.CachedEmbedding]] = []
    pace = 0.0
    for view in range(views):
        found = embeddings.look_up(cases, [(view, PLAIN)])
        missing = [key for key, entry in found.items() if entry is None]
        if view >= plan.encoding.least_views and missing:
            if not pace:  # the first one may have to wait for the encoder to be loaded
                embeddings.fill(found, missing[:1])
                pace, missing = embeddings.fill(found, missing[1:2]), missing[2:]
            if time.monotonic() + pace * len(missing) > until:
                break
        pace = embeddings.fill(found, missing) or pace
        ready.append([entry for entry in found.values() if entry is not None])
    return [entry for of_case in zip(*ready, strict=True) for entry in of_case], len(ready)


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
        self.fill(found, [key for key, entry in found.items() if entry is None])
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

    def fill(self, found: dict[EmbeddingKey, cache.CachedEmbedding | None], missing: Sequence[EmbeddingKey]) -> float:
        """Add the entries that are missing, computed here or by another process.

        Returns:
            the seconds that each took; 0 where none is missing.
        """
        begin = time.monotonic()
        for folder in {cache.entry_folder(self.root, key).parent for key in missing}:
            remove_leftovers(folder)
        compute = functools.partial(
            _embed_or_open, root=self.root, cases=self.cases, source=self.source, outside=self.outside
        )
        found.update(_encode_shared(compute, missing, f"encode ({self.source.encoding.source.encoder})"))
        return (time.monotonic() - begin) / len(missing) if missing else 0.0


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
