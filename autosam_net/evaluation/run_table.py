"""Many trainings and their validations: one row each, and mean and deviation over their seeds."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosam_net.files import atomic_file
from autosam_net.jsonio import read_sealed

SECONDS = ("training_seconds", "encoding_seconds")


@dataclass(frozen=True)
class LabelRun:
    """One training and its validation, or that of the unadapted SAM.

    Attributes:
        labelled: as it was asked for, a number or "all"; "0" for what was not trained.
        patients: trained on.
        figures: what was measured: Dice (mean over the classes), Dice of each class, HD95, seconds; None: undefined.
        prompts: that the held-out cases were predicted with, in words; None where none are needed.
    """

    configuration: str
    labelled: str
    patients: int
    seed: int
    figures: Mapping[str, float | None]
    prompts: str | None = None

    @property
    def name(self) -> str:
        """Return the configuration, with the prompts that it needs."""
        return self.configuration if self.prompts is None else f"{self.configuration} ({self.prompts})"


@dataclass(frozen=True)
class LabelGroup:
    """The runs of one configuration on one number of patients, of all seeds.

    Attributes:
        mean, sd: figure -> mean and (for two runs and more) standard deviation of the sample, over the seeds.
    """

    configuration: str
    labelled: str
    patients: int
    runs: tuple[LabelRun, ...]
    mean: Mapping[str, float | None]
    sd: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """Return the configuration, with the prompts that it needs."""
        return self.runs[0].name


def read_figures(folder: Path) -> dict[str, float | None]:
    """Return the figures of a trained fold: those of its validation and the seconds that it took.

    Raises:
        PlanError: validation/summary.json or run.json is missing or damaged.
    """
    summary: Any = read_sealed(folder / "validation" / "summary.json")
    seconds: Any = read_sealed(folder / "run.json")["seconds"]
    names = summary["label_names"]
    return {
        "Dice": summary["foreground_mean"]["Dice"],
        **{f"Dice {names[key]}": mean["Dice"] for key, mean in summary["mean"].items()},
        "HD95": summary["foreground_mean"]["HD95"],
        **{name: seconds.get(name.removesuffix("_seconds"), 0.0) for name in SECONDS},
    }


def read_prompts(folder: Path) -> str | None:
    """Return the prompts that a fold's held-out cases were predicted with, in words, if any.

    Raises:
        PlanError: validation/summary.json is missing or damaged.
    """
    prompts: str | None = read_sealed(folder / "validation" / "summary.json").get("prompts")
    return prompts


def group_runs(runs: Sequence[LabelRun]) -> list[LabelGroup]:
    """Return one group for each configuration and number of patients, in the order of the runs."""
    members: dict[tuple[str, str, int], list[LabelRun]] = {}
    for run in runs:
        members.setdefault((run.name, run.labelled, run.patients), []).append(run)
    groups = []
    for (_, labelled, patients), group in members.items():
        values = {name: [run.figures[name] for run in group] for name in group[0].figures}
        mean = {name: _mean(found) for name, found in values.items()}
        sd = {name: _sd(found) for name, found in values.items()}
        groups.append(LabelGroup(group[0].configuration, labelled, patients, tuple(group), mean, sd))
    return groups


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None


def _sd(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.stdev(defined) if len(defined) > 1 else None


def write_tables(folder: Path, runs: Sequence[LabelRun]) -> list[LabelGroup]:
    """Write runs.csv (one row a run) and table.csv (mean and deviation over seeds); return the groups of runs."""
    groups = group_runs(runs)
    figures = list(runs[0].figures)
    _write_csv(
        folder / "runs.csv",
        ["configuration", "prompts", "labelled", "patients", "seed", *figures],
        [
            [run.configuration, run.prompts, run.labelled, run.patients, run.seed, *map(_rounded, run.figures.values())]
            for run in runs
        ],
    )
    _write_csv(
        folder / "table.csv",
        [
            "configuration",
            "prompts",
            "labelled",
            "patients",
            "runs",
            *(f"{name} {of}" for name in figures for of in ("mean", "sd")),
        ],
        [
            [group.configuration, group.runs[0].prompts, group.labelled, group.patients, len(group.runs)]
            + [_rounded(part[name]) for name in figures for part in (group.mean, group.sd)]
            for group in groups
        ],
    )
    return groups


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def number_or_nan(value: float | None) -> float:
    """Return a figure for a plot, in which NaN is not drawn."""
    return float("nan") if value is None else value


def with_spread(group: LabelGroup, figure: str, digits: int) -> str:
    """Return the mean of a figure over the seeds and its standard deviation, as text."""
    mean, sd = group.mean[figure], group.sd[figure]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")
