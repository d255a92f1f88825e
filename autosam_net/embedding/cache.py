"""Embeddings on disk: one folder a case and view, written whole, verified before use.

embeddings/<encoder>_<size>_<settings>/<case>/view_00/
    embedding.npy    (N, C, h, w) float16, of which single rows are read
    labels.npy       (N, S, S) label values of the same (possibly augmented) inputs
    entry.json       the key and the sha256 of the two arrays
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.arrays import new_array
from autosam_net.data.encoding import PLAIN
from autosam_net.embedding.key import EmbeddingKey
from autosam_net.errors import AutosamError, CacheError
from autosam_net.files import atomic_folder, remove_leftovers, sha256_of_files
from autosam_net.jsonio import load, sealed, write_json

ARRAYS = ("embedding.npy", "labels.npy")


@dataclass(frozen=True)
class EntryRecord:
    """The content of entry.json.

    Attributes:
        sha256: over the files of both arrays.
        present: for each input, the label values that occur in it.
    """

    key: EmbeddingKey
    sha256: str
    present: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CacheUse:
    """What is cached by one setting of the encoder.

    Attributes:
        settings: encoder, input size and digest, the name of the folder.
        views: entries of all cases together, poses among them.
        mib: on disk.
    """

    settings: str
    cases: int
    views: int
    mib: float


@dataclass(frozen=True)
class ArrayFile:
    """An array in a .npy file, mapped into memory for each read and not kept open.

    A map that stays holds a file descriptor. A process may have as few as 1024, a data set thousands of views.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int

    @classmethod
    def open(cls, path: Path) -> ArrayFile:
        """Return the array in a file; nothing but its header is read."""
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(path, mapped.shape, mapped.dtype, mapped.offset)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def row(self, index: int) -> NDArray[np.generic]:
        """Return one row, `shape[1:]`."""
        return np.array(self._mapped()[index])

    def rows(self, indices: Iterable[int]) -> NDArray[np.generic]:
        """Return the rows with these numbers, `(len(indices), *shape[1:])`."""
        return self._mapped()[list(indices)]  # an index list copies

    def _mapped(self) -> NDArray[np.generic]:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


@dataclass(frozen=True)
class CachedEmbedding:
    """One view of one case, ready to be read.

    Attributes:
        embedding: `(N, C, h, w)` float16.
        labels: `(N, S, S)` label values.
        present: for each of the N inputs, the label values that occur in it.
    """

    key: EmbeddingKey
    embedding: ArrayFile
    labels: ArrayFile
    present: tuple[tuple[int, ...], ...]


def entry_folder(root: Path, key: EmbeddingKey) -> Path:
    """Return where the entry of a key lies below the cache's folder `root`."""
    pose = "" if key.pose == PLAIN else f"_{key.pose}"
    return root / key.settings / key.case / f"view_{key.view:02d}{pose}"


def write_entry(
    root: Path,
    key: EmbeddingKey,
    shape: tuple[int, int, int, int],
    label_shape: tuple[int, int, int],
    label_type: np.dtype[np.integer],
    batches: Iterable[tuple[NDArray[np.float16], NDArray[np.integer]]],
) -> None:
    """Write an entry from batches of (embeddings, labels); memory holds one batch at a time.

    Args:
        shape: `(N, C, h, w)` of all embeddings together.
        label_shape: `(N, S, S)`.
    """
    with atomic_folder(entry_folder(root, key)) as folder:
        files = [folder / name for name in ARRAYS]
        embedding = new_array(files[0], np.float16, shape)
        labels = new_array(files[1], label_type, label_shape)
        present: list[tuple[int, ...]] = []
        for some_embeddings, some_labels in batches:
            rows = slice(len(present), len(present) + len(some_labels))
            embedding[rows], labels[rows] = some_embeddings, some_labels
            present += [tuple(np.unique(label_map).tolist()) for label_map in some_labels]
        assert len(present) == shape[0], f"{len(present)} embeddings for {shape[0]} inputs"
        embedding.flush()
        labels.flush()
        write_json(folder / "entry.json", sealed(EntryRecord(key, sha256_of_files(files), tuple(present))))


def open_entry(root: Path, key: EmbeddingKey) -> CachedEmbedding | None:
    """Return the entry of a key, or None where there is none or one of other content (it is to be computed anew).

    Raises:
        CacheError: the entry is of this key but its arrays are not those that were written.
    """
    folder = entry_folder(root, key)
    try:
        record = load(EntryRecord, folder / "entry.json")
    except AutosamError:
        return None
    if record.key != key:
        return None
    verify_entry(folder, record)
    embedding, labels = (ArrayFile.open(folder / name) for name in ARRAYS)
    return CachedEmbedding(key, embedding, labels, record.present)


def verify_entry(folder: Path, record: EntryRecord) -> None:
    """Check an entry's arrays against the checksum in its record.

    Raises:
        CacheError: they differ or cannot be read.
    """
    try:
        found = sha256_of_files([folder / name for name in ARRAYS])
    except OSError as error:
        found = str(error)
    if found != record.sha256:
        raise CacheError(
            f"{folder}: the cached embedding is damaged (checksum {found[:12]}, expected {record.sha256[:12]}). "
            "Run `autosam_cache prune --damaged` and repeat the command."
        )


def list_entries(root: Path) -> Iterator[tuple[Path, EntryRecord | None]]:
    """Yield every entry below `root` with its record, None where the record cannot be read."""
    for file in _record_files(root):
        try:
            yield file.parent, load(EntryRecord, file)
        except AutosamError:
            yield file.parent, None


def _record_files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/view_*/entry.json"))


def cache_use(root: Path) -> list[CacheUse]:
    """Return how much lies below `root`, one record a setting of the encoder."""
    settings: dict[str, list[Path]] = {}
    for file in _record_files(root):
        settings.setdefault(file.parents[2].name, []).append(file.parent)
    return [
        CacheUse(
            settings=name,
            cases=len({folder.parent for folder in folders}),
            views=len(folders),
            mib=sum(file.stat().st_size for folder in folders for file in folder.iterdir()) / 2**20,
        )
        for name, folders in settings.items()
    ]


def remove_entry(folder: Path) -> None:
    """Remove an entry, what killed runs left beside it, and the folders above that are empty then (case, settings)."""
    shutil.rmtree(folder)
    remove_leftovers(folder.parent)
    for parent in (folder.parent, folder.parent.parent):
        if not any(parent.iterdir()):
            parent.rmdir()
