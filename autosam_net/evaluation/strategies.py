"""What each strategy of training costs and brings: tables, also as markdown, and a plot of many trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autosam_net.evaluation.run_table import (
    SECONDS,
    LabelGroup,
    LabelRun,
    group_runs,
    number_or_nan,
    read_figures,
    with_spread,
    write_tables,
)
from autosam_net.files import atomic_file
from autosam_net.jsonio import read_sealed

PARAMETERS, STEPS, STEP_SECONDS = "trained parameters", "steps", "seconds per step"
MEMORY, MINUTES = "peak memory (MiB)", "minutes"
DRAWN = {"Dice": "mean Dice", PARAMETERS: PARAMETERS, MEMORY: MEMORY, STEP_SECONDS: STEP_SECONDS}
"""Figure -> title of its part of the plot."""
HEADINGS = ("strategy", "labelled", "runs", PARAMETERS, STEPS, STEP_SECONDS, MEMORY, MINUTES, "Dice", "HD95")


def read_strategy_figures(folder: Path, device: str, start: Path | None = None) -> dict[str, float | None]:
    """Return the figures of a trained fold and what it cost.

    Args:
        device: whose memory counts.
        start: folder of the trained head that training began with, if any; its minutes are counted too.

    Raises:
        PlanError: validation/summary.json or run.json is missing or damaged.
    """
    record: Any = read_sealed(folder / "run.json")
    seconds = [_seconds(record), *([] if start is None else [_seconds(read_sealed(start / "run.json"))])]
    steps = record["iterations"]
    return {
        **read_figures(folder),
        PARAMETERS: sum(part["trained"] for part in record["parameters"].values()),
        STEPS: steps,
        STEP_SECONDS: record["seconds"]["training"] / steps if steps else None,
        MEMORY: record["peak_memory_mib"].get(device) or None,
        MINUTES: sum(seconds) / 60,
    }


def _seconds(record: Mapping[str, Any]) -> float:
    return sum(record["seconds"][name.removesuffix("_seconds")] for name in SECONDS)


def write_strategies(folder: Path, title: str, runs: Sequence[LabelRun]) -> None:
    """Write runs.csv, table.csv, table.md and strategies.png."""
    groups = write_tables(folder, runs)
    with atomic_file(folder / "table.md") as temporary:
        temporary.write_text(f"{title}\n\n{strategies_table(runs)}\n", encoding="utf-8")
    _draw(folder / "strategies.png", title, groups)


def strategies_table(runs: Sequence[LabelRun]) -> str:
    """Return mean and standard deviation over the seeds as a table in markdown, one row a strategy and number."""
    rows = [HEADINGS, ("---",) * 2 + ("--:",) * (len(HEADINGS) - 2), *map(_row, group_runs(runs))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(group: LabelGroup) -> tuple[str, ...]:
    parameters = group.mean[PARAMETERS]
    return (
        group.configuration,
        group.labelled,
        str(len(group.runs)),
        "-" if parameters is None else f"{parameters:,.0f}",
        _mean(group, STEPS, 0),
        _mean(group, STEP_SECONDS, 2),
        _mean(group, MEMORY, 0),
        _mean(group, MINUTES, 1),
        with_spread(group, "Dice", 3),
        with_spread(group, "HD95", 1),
    )


def _mean(group: LabelGroup, figure: str, digits: int) -> str:
    value = group.mean[figure]
    return "-" if value is None else f"{value:.{digits}f}"


def _draw(path: Path, title: str, groups: Sequence[LabelGroup]) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(group.configuration for group in groups))
    numbers = list(dict.fromkeys(group.labelled for group in groups))
    figure = Figure(figsize=(4 + 2.5 * len(DRAWN), 2 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(DRAWN), sharey=True)
    for part, (name, heading) in zip(axes, DRAWN.items(), strict=True):
        for index, number in enumerate(numbers):
            own = [group for group in groups if group.labelled == number]
            aside = 0.3 * (index - (len(numbers) - 1) / 2)  # so that one does not hide another
            places = [names.index(group.configuration) + aside for group in own]
            values = [number_or_nan(group.mean[name]) for group in own]
            spread = [number_or_nan(group.sd[name]) for group in own]
            part.errorbar(
                values, places, xerr=spread, fmt="s", capsize=3, color=f"C{index}", label=f"{number} labelled"
            )
        part.set_xlabel(heading)
        part.grid(alpha=0.3)
        if name == PARAMETERS:
            part.set_xscale("log")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(numbers))
    figure.suptitle(title)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
