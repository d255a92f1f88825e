"""The networks that a user has pretrained, in the user's folder: of each its weights and a record of them; no torch.

<folder>/NAME.safetensors    of an encoder, a checkpoint in the layout of the one it began with; of a head, a part of it
         NAME.json           what it is, and the sha256 of the weights; written last: what has none is not there
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autosam_net.errors import AutosamError, PlanError, UsageError
from autosam_net.files import sha256_of_text
from autosam_net.jsonio import load
from autosam_net.paths import encoders_folder
from autosam_net.registry import suggest

log = logging.getLogger(__name__)
NAME = re.compile(r"[\w+-][\w.+-]*", re.ASCII)


@dataclass(frozen=True)
class PretrainedRecord:
    """The content of NAME.json.

    Attributes:
        method: `masked` of an encoder, `contrastive` of a head.
        base: the registered encoder whose weights these are, or the head.
        sha256, size: of NAME.safetensors.
        licence: of the weights it began with, None where there were none or it is not known.
        began_with: sha256 of these weights, "none" where there were none.
        dataset, fold: that it saw the training cases of.
        cases, inputs: how many of them and of others, and their slices or tiles.
        iterations: of `batch_size` inputs each.
        minutes: that they took.
        settings: digest of all that the weights depend on.
        seen: digests of the names of the data set's cases among them, for `seen_among`.
    """

    name: str
    method: Literal["masked", "contrastive"]
    base: str
    sha256: str
    size: int
    licence: str | None
    began_with: str
    dataset: str
    fold: str
    cases: int
    inputs: int
    iterations: int
    batch_size: int
    minutes: float
    seed: int
    settings: str
    seen: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Return the file of the weights."""
        return weights_file(self.name)

    @property
    def is_encoder(self) -> bool:
        """Return whether it is an encoder, else a part of a head."""
        return self.method == "masked"

    @property
    def description(self) -> str:
        """Return in words what it is."""
        how = "masked image modelling" if self.is_encoder else "contrastive learning"
        return (
            f"{self.base}, pretrained without labels by {how} on {self.inputs} slices of {self.cases} cases "
            f"({self.dataset}, training part of fold {self.fold}), {self.iterations} batches of {self.batch_size}"
        )


def weights_file(name: str) -> Path:
    """Return where the weights of a network called `name` lie."""
    return encoders_folder() / f"{name}.safetensors"


def record_file(name: str) -> Path:
    """Return where the record of a network called `name` lies."""
    return encoders_folder() / f"{name}.json"


def find_record(name: str) -> PretrainedRecord | None:
    """Return the record of a pretrained network, None where there is none of that name.

    Raises:
        PlanError: the record is damaged.
    """
    file = record_file(name)
    if not NAME.fullmatch(name) or not file.is_file():
        return None
    facts = file.stat()
    return _read(file, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(file: Path, size: int, changed: int) -> PretrainedRecord:
    record: PretrainedRecord = load(PretrainedRecord, file)
    if record.name != file.stem:
        raise PlanError(f"{file}: of a network called {record.name}. Give both its files that name again.")
    return record


def list_records() -> Iterator[PretrainedRecord]:
    """Yield the records of all pretrained networks, sorted by name; of a damaged one a warning is left."""
    for file in sorted(encoders_folder().glob("*.json")):
        try:
            record = find_record(file.stem)
        except AutosamError as error:
            log.warning("%s; it is left out", error)
            continue
        if record is not None:
            yield record


def find_head(name: str, head: str) -> PretrainedRecord:
    """Return the record of a pretrained part of a head.

    Raises:
        PlanError: the record is damaged.
        UsageError: there is none of that name, or it is of another head, or an encoder.
    """
    record = find_record(name)
    if record is None:
        names = [other.name for other in list_records() if not other.is_encoder]
        raise UsageError(f"--pretrained {name}: no such network in {encoders_folder()}; {suggest(name, names)}")
    if record.is_encoder:
        raise UsageError(f"--pretrained {name}: an encoder. Plan with --encoder {name} instead.")
    if record.base != head:
        raise UsageError(f"--pretrained {name}: of the head {record.base}, not of {head}.")
    return record


def case_digest(dataset: str, case: str) -> str:
    """Return what stands for a case in `PretrainedRecord.seen`, which is handed on without names."""
    return sha256_of_text(f"{dataset}/{case}")[:16]


def seen_among(name: str, dataset: str, cases: Sequence[str]) -> list[str]:
    """Return those of `cases` whose images a network, if it was pretrained here, has seen."""
    record = find_record(name)
    seen = set() if record is None else set(record.seen)
    return [case for case in cases if case_digest(dataset, case) in seen]
