"""What trainings left in a data set's folder of results, finished or not."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autosam_net.errors import ModelError, PlanError
from autosam_net.evaluation.metric_table import MetricTable, read_metric_tables
from autosam_net.jsonio import read_sealed
from autosam_net.registry import suggest
from autosam_net.training.run import ModelFolder, TrainingOptions


@dataclass(frozen=True)
class FoldRecord:
    """One fold of a run.

    Attributes:
        manifest: what run.json says; empty where training has not finished.
        log: one row an epoch, as in training_log.csv.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    log: tuple[Mapping[str, float], ...]

    @property
    def is_validated(self) -> bool:
        """Return whether its held-out cases were predicted and compared."""
        return (self.folder / "validation" / "cases.csv").is_file()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Return what took how long."""
        found = self.manifest.get("seconds", {})
        return found if isinstance(found, Mapping) else {"all": found}


@dataclass(frozen=True)
class RunRecord:
    """One configuration, trained in one way, with all its folds.

    Attributes:
        table: of the held-out cases of all validated folds; None where there is none.
        unit: of distances.
        tolerance: of the normalised surface Dice, in `unit`.
        prompts: that the held-out cases were predicted with, in words; None where there were none.
    """

    model: ModelFolder
    folds: tuple[FoldRecord, ...]
    table: MetricTable | None
    unit: str
    tolerance: float
    prompts: str | None = None

    @property
    def name(self) -> str:
        """Return `cnn_labelled1_seed0`."""
        return self.model.path.name

    @property
    def title(self) -> str:
        """Return the name, with the prompts that the figures were reached with."""
        return self.name if self.prompts is None else f"{self.name} ({self.prompts})"

    def prediction(self, case: str, file_ending: str) -> Path | None:
        """Return the label map that a fold predicted for a case it held out."""
        files = (fold.folder / "validation" / (case + file_ending) for fold in self.folds)
        return next((file for file in files if file.is_file()), None)


def read_runs(results: Path, names: Sequence[str] | None = None) -> list[RunRecord]:
    """Return the runs in a data set's folder of results, sorted by name; those called `names`, if given.

    Raises:
        DatasetError: a table of validated cases is damaged.
        ModelError: there is no run of such a name.
        PlanError: a file of a run is damaged.
    """
    found = {path.parent.name: path.parent for path in sorted(results.glob("*/fold_*")) if path.is_dir()}
    found.pop("ensembles", None)
    for name in names or ():
        if name not in found:
            raise ModelError(f"{results}: no trained model {name!r}; {suggest(name, found)}")
    return [_read_run(found[name]) for name in names or found]


def _read_run(folder: Path) -> RunRecord:
    folds = tuple(_read_fold(path) for path in sorted(folder.glob("fold_*")) if path.is_dir())
    validations = [fold.folder / "validation" for fold in folds if fold.is_validated]
    table = read_metric_tables([place / "cases.csv" for place in validations]) if validations else None
    summary = read_sealed(validations[0] / "summary.json") if validations else {}
    unit, tolerance = summary.get("unit", "mm"), summary.get("nsd_tolerance", 0.0)
    return RunRecord(ModelFolder(folder), folds, table, unit, tolerance, summary.get("prompts"))


def _read_fold(folder: Path) -> FoldRecord:
    manifest, log = folder / "run.json", folder / "training_log.csv"
    return FoldRecord(
        name=folder.name.removeprefix("fold_"),
        folder=folder,
        manifest=read_sealed(manifest) if manifest.is_file() else {},
        log=_read_log(log) if log.is_file() else (),
    )


def _read_log(file: Path) -> tuple[Mapping[str, float], ...]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return tuple({name: float(value) for name, value in row.items()} for row in csv.DictReader(stream))
    except (TypeError, ValueError) as error:
        raise PlanError(f"{file}: not a log of a training ({error}). Train this fold again.") from error


def command_of(run: RunRecord, fold: FoldRecord, identifier: int) -> tuple[str, bool] | None:
    """Return the command that made a fold, and whether it was recorded; else it is put together from the settings.

    None where neither is known.
    """
    if command := fold.manifest.get("command"):
        return str(command), True
    known = {field.name for field in fields(TrainingOptions)}
    options = fold.manifest.get("options")
    if not isinstance(options, Mapping) or not set(options) <= known:
        return None
    settings = TrainingOptions(**options)
    words = ["autosam_train", str(identifier), run.name.removesuffix(settings.run_name("")), fold.name]
    for flag, value in (
        ("--labelled", settings.labelled),
        ("--seed", settings.seed or None),
        ("--epochs", settings.epochs),
        ("--max-minutes", settings.max_minutes),
    ):
        words += [] if value is None else [flag, f"{value:g}"]
    words += [] if settings.pretrained is None else ["--pretrained", settings.pretrained]
    words += [] if settings.tuning is None else ["--tune", settings.tune]
    words += [] if settings.prompts is None else ["--prompts", settings.prompts]
    switches = {"--unlabelled": settings.unlabelled, "--from-head": settings.from_head}
    return shlex.join([*words, *(flag for flag, given in switches.items() if given)]), False
