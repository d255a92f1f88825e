"""Damaged, truncated and swapped files of the cache and of training: found by checksum, or the very same content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.embedding.cache import open_entry
from autosam_net.embedding.embed import embed_dataset, embeddings_folder
from autosam_net.embedding.key import embedding_key
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import AutosamError
from autosam_net.evaluation.case_table import read_rows, replace_cases
from autosam_net.evaluation.expected_dice import EXPECTED_DICE_FILE, ExpectedDice, Judgement, Line, read_expected_dice
from autosam_net.inference.trained_head import read_head
from autosam_net.jsonio import load, read_sealed, sealed, write_json
from autosam_net.preprocessing.preprocess import cases_folder, load_case, load_record
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.train import train_head
from autosam_net.training.unlabelled import Lessons
from tests.faults.stages import SHARE
from tests.support import Prepared, copied

HEADER = 256  # bytes at the start, in which half of the damage is done
DAMAGES = 40  # of each kind of file


@dataclass(frozen=True)
class Kept:
    """A kind of file.

    Attributes:
        files: that are damaged, in turn.
        other: file -> one of the same kind that it could be swapped with.
        read: returns what is used of the files, or raises.
    """

    files: list[Path]
    other: Callable[[Path], Path]
    read: Callable[[], Any]


def damages(content: bytes, other: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield the bytes of another file, then ever new ones: bits flipped, cut off, a block of zeros."""
    yield other
    while True:
        changed = bytearray(content)
        end = min(HEADER, len(content)) if rng.random() < 0.5 else len(content)
        place = int(rng.integers(end))
        kind = rng.integers(4)
        if kind <= 1:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[place:]
        else:
            changed[place : place + 64] = bytes(len(changed[place : place + 64]))
        yield bytes(changed)


@pytest.fixture(scope="module")
def place(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return a copy of the phantom with embeddings of two cases and two folds that are trained."""
    place = copied(prepared, tmp_path_factory.mktemp("damage"))
    embed_dataset(place.dataset, place.plan, place.folders, first_two(place))
    for fold in (0, 1):
        train_head(place.dataset, place.plan, "linear", fold, folders=place.folders)
    return place


def first_two(place: Prepared) -> list[str]:
    return sorted(folder.name for folder in cases_folder(place.dataset, place.folders).iterdir())[:2]


def neighbour(place: Prepared) -> Callable[[Path], Path]:
    one, two = first_two(place)
    return lambda file: Path(str(file).replace(one, two))


def preprocessed(place: Prepared) -> Kept:
    folder = cases_folder(place.dataset, place.folders) / first_two(place)[0]

    def read() -> Any:
        case = load_case(folder)
        return np.asarray(case.image).tobytes(), np.asarray(case.labels).tobytes(), case.properties

    return Kept([folder / name for name in ("image.npy", "labels.npy", "case.json")], neighbour(place), read)


def embedded(place: Prepared) -> Kept:
    root, name = embeddings_folder(place.dataset, place.folders), first_two(place)[0]
    content = load_record(cases_folder(place.dataset, place.folders) / name).key
    precision = EncoderSource(place.plan.encoding, "cpu").precision
    key = embedding_key(name, content, place.plan.encoding, precision, 0)

    def read() -> Any:
        entry = open_entry(root, key)
        if entry is None:
            raise AutosamError("to be computed anew")
        rows = range(entry.embedding.shape[0])
        return entry.embedding.rows(rows).tobytes(), entry.labels.rows(rows).tobytes(), entry.present

    folder = root / key.settings / name / "view_00"
    return Kept([folder / name for name in ("embedding.npy", "labels.npy", "entry.json")], neighbour(place), read)


def head(place: Prepared) -> Kept:
    file = place.folders.results / place.dataset.name / "linear" / "fold_0" / "model.safetensors"

    def read() -> Any:
        tensors, metadata = read_head(file, place.plan)
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata

    return Kept([file], lambda _: file.parents[1] / "fold_1" / file.name, read)


def checkpoint(place: Prepared) -> Kept:
    folder = place.folders.results / place.dataset.name / "linear"
    file = folder / "fold_0" / "checkpoint.safetensors"
    settings = load_tensors(file)[1]["settings"]

    def read() -> Any:
        tensors, metadata = load_tensors(file)
        if metadata["settings"] != settings:  # as restore_checkpoint does
            raise AutosamError("of another training")
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata

    return Kept([file], lambda _: folder / "fold_1" / file.name, read)


def fingerprint(place: Prepared) -> Kept:
    folder = place.folders.preprocessed / place.dataset.name
    file = folder / "dataset_fingerprint.json"
    return Kept([file], lambda _: folder / "plan.json", lambda: load(Fingerprint, file))


def expected_dice(place: Prepared) -> Kept:
    folder = place.folders.results / place.dataset.name / "linear"
    judgement = Judgement(0.7, 0.6, 0.5, 0.1, 2, 2, 1)
    lines = {name: Line(0.1, 0.5, 0.3, True) for name in place.plan.label_set.targets}
    write_json(folder / EXPECTED_DICE_FILE, sealed(ExpectedDice(lines, 0.5, 6, 6, judgement)))
    return Kept([folder / EXPECTED_DICE_FILE], lambda _: folder / "plan.json", lambda: read_expected_dice(folder))


def manifest(place: Prepared) -> Kept:
    folder = place.folders.results / place.dataset.name / "linear"
    file = folder / "fold_0" / "run.json"
    keys = read_sealed(file).keys()

    def read() -> Any:
        run = read_sealed(file)
        return {key: run.get(key) for key in keys}, read_head(file.with_name("model.safetensors"), place.plan)[1]

    return Kept([file], lambda _: folder / "fold_1" / file.name, read)


def pseudo_labels(place: Prepared) -> Kept:
    lessons = Lessons(place.root, tuple(first_two(place)), place.root / "pseudo_labels")
    for seed, case in enumerate(lessons.cases):
        lessons.write(case, np.random.default_rng(seed).integers(0, 3, (2, 20, 20)).astype(np.uint8))
    file = lessons.file(lessons.cases[0])
    return Kept(
        [file, file.with_suffix(".json")], neighbour(place), lambda: np.asarray(lessons.read(file.stem)).tobytes()
    )


def table(place: Prepared) -> Kept:
    files = [place.root / "tables" / name / "cases.csv" for name in "ab"]
    for file, dice in zip(files, (0.9, 0.8), strict=True):
        replace_cases(file, {(f"case{number}", "left"): {"Dice": dice} for number in range(9)})
    return Kept(files[:1], lambda _: files[1], lambda: read_rows(files[0]))


KINDS = [preprocessed, embedded, head, checkpoint, fingerprint, expected_dice, manifest, pseudo_labels, table]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damage_is_found(place: Prepared, kind: Callable[[Prepared], Kept]) -> None:
    damage(place, kind, DAMAGES)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damage_of_many_kinds_is_found(place: Prepared, kind: Callable[[Prepared], Kept]) -> None:
    damage(place, kind, max(DAMAGES, round(SHARE * 50 * DAMAGES)))


def damage(place: Prepared, kind: Callable[[Prepared], Kept], times: int) -> None:
    kept, rng = kind(place), np.random.default_rng(5)
    sound, found, lines = kept.read(), 0, 0
    for file in kept.files:
        content = file.read_bytes()
        for changed, _ in zip(damages(content, kept.other(file).read_bytes(), rng), range(times), strict=False):
            file.write_bytes(changed)
            try:
                assert kept.read() == sound, f"{file.name}: damaged, and used"
            except AutosamError as error:
                lines += str(error).count("\n") + 1
                found += 1
        file.write_bytes(content)
    assert lines == found
    assert found > 0.7 * times * len(kept.files)
    assert kept.read() == sound
