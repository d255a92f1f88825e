"""How accuracy grows with the number of labelled patients: many trainings as two tables and a curve."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosam_net.evaluation.report import as_text
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


def write_label_efficiency(folder: Path, runs: Sequence[LabelRun]) -> None:
    """Write runs.csv (one row a run), table.csv (mean and deviation over seeds) and label_efficiency.png."""
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
    _draw(folder / "label_efficiency.png", groups)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _draw(path: Path, groups: Sequence[LabelGroup]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    untrained = any(group.patients == 0 for group in groups)
    axes.set_xscale(**({"value": "symlog", "linthresh": 1, "linscale": 0.4} if untrained else {"value": "log"}))
    names = list(dict.fromkeys(group.name for group in groups))
    for index, name in enumerate(names):
        aside = 1.04 ** (index - (len(names) - 1) / 2)  # so that one does not hide another
        own = sorted((group for group in groups if group.name == name), key=lambda group: group.patients)
        runs = [run for group in own for run in group.runs]
        mean = [_number(group.mean["Dice"]) for group in own]
        spread = [_number(group.sd["Dice"]) for group in own]
        places = [group.patients * aside for group in own]
        axes.errorbar(places, mean, spread, color=f"C{index}", marker="s", capsize=4, label=name)
        dots = [run.patients * aside for run in runs], [_number(run.figures["Dice"]) for run in runs]
        axes.plot(*dots, "o", color=f"C{index}", alpha=0.5, markersize=4)
        if own[-1].patients == 0:
            axes.axhline(mean[-1], color=f"C{index}", linestyle=":")  # what labels have to beat
    ticks = sorted({group.patients for group in groups})
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labelled patients")
    axes.set_ylabel("mean Dice (dots: single runs, bars: standard deviation)")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # NaN is not drawn


def label_efficiency_table(runs: Sequence[LabelRun]) -> str:
    """Return mean and standard deviation over the seeds as a table of text, one row a configuration and number."""
    from rich.table import Table

    table = Table("configuration", title="mean ± standard deviation over seeds")
    for heading in ("labelled", "runs", "Dice", "HD95", "minutes"):
        table.add_column(heading, justify="right")
    for group in group_runs(runs):
        minutes = sum(group.mean[name] or 0.0 for name in SECONDS) / 60
        figures = [_with_spread(group, "Dice", 3), _with_spread(group, "HD95", 2), f"{minutes:.1f}"]
        table.add_row(group.name, group.labelled, str(len(group.runs)), *figures)
    return as_text(table)


def _with_spread(group: LabelGroup, figure: str, digits: int) -> str:
    mean, sd = group.mean[figure], group.sd[figure]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")
