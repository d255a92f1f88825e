"""Entries that appear whole, are verified, and are made anew when anything they depend on changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.embedding.cache import entry_folder, list_entries, open_entry, remove_entry, write_entry
from autosam_net.embedding.key import EmbeddingKey, embedding_key
from autosam_net.errors import CacheError
from tests.support import Prepared

SHAPE, LABEL_SHAPE = (3, 2, 4, 4), (3, 16, 16)


@pytest.fixture
def key(prepared: Prepared) -> EmbeddingKey:
    return embedding_key("patient1", "content", prepared.plan.encoding, "float32", 0)


def batches(fail_after: int = 3):
    rng = np.random.default_rng(0)
    for row in range(3):
        if row == fail_after:
            raise OSError("disk full")
        yield rng.random((1, *SHAPE[1:])).astype(np.float16), np.full((1, *LABEL_SHAPE[1:]), row, np.uint8)


def write(root: Path, key: EmbeddingKey, fail_after: int = 3) -> None:
    write_entry(root, key, SHAPE, LABEL_SHAPE, np.dtype(np.uint8), batches(fail_after))


def test_what_is_written_is_read_row_by_row(tmp_path: Path, key: EmbeddingKey) -> None:
    write(tmp_path, key)
    entry = open_entry(tmp_path, key)
    assert entry is not None
    expected = np.concatenate([embedding for embedding, _ in batches()])
    np.testing.assert_array_equal(entry.embedding.rows([2, 0]), expected[[2, 0]])
    np.testing.assert_array_equal(entry.labels.row(1), np.ones(LABEL_SHAPE[1:], np.uint8))
    assert entry.embedding.dtype == np.float16
    assert entry.embedding.nbytes == expected.nbytes
    assert entry.present == ((0,), (1,), (2,))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_open_entries_hold_no_file(tmp_path: Path, key: EmbeddingKey) -> None:
    write(tmp_path, key)
    before = len(list(Path("/proc/self/fd").iterdir()))
    entries = [open_entry(tmp_path, key) for _ in range(20)]
    assert all(entries)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_failed_write_leaves_nothing(tmp_path: Path, key: EmbeddingKey) -> None:
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, key, fail_after=2)
    assert open_entry(tmp_path, key) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("field", ["content", "weights_sha256", "precision", "input_size", "overlap", "version"])
def test_any_other_key_finds_nothing(tmp_path: Path, key: EmbeddingKey, field: str) -> None:
    write(tmp_path, key)
    value = getattr(key, field)
    other = replace(key, **{field: value + "x" if isinstance(value, str) else value + 1})
    assert open_entry(tmp_path, other) is None


@pytest.mark.parametrize("name", ["embedding.npy", "labels.npy"])
def test_a_flipped_bit_is_found(tmp_path: Path, key: EmbeddingKey, name: str) -> None:
    write(tmp_path, key)
    file = entry_folder(tmp_path, key) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CacheError, match=r"damaged .* Run `autosam_cache prune --damaged`"):
        open_entry(tmp_path, key)


def test_a_truncated_file_is_found(tmp_path: Path, key: EmbeddingKey) -> None:
    write(tmp_path, key)
    file = entry_folder(tmp_path, key) / "embedding.npy"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CacheError, match="damaged"):
        open_entry(tmp_path, key)


def test_entries_are_listed_and_removed_with_their_empty_folders(tmp_path: Path, key: EmbeddingKey) -> None:
    write(tmp_path, key)
    write(tmp_path, replace(key, view=1))
    entries = list(list_entries(tmp_path))
    assert [record.key.view for _, record in entries if record is not None] == [0, 1]
    for folder, _ in entries:
        (folder.parent / ".writing-killed").mkdir(exist_ok=True)
        remove_entry(folder)
    assert list(tmp_path.iterdir()) == []
