"""How accuracy grows with the number of labelled patients: many trainings as two tables and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autosam_net.evaluation.report import as_text
from autosam_net.evaluation.run_table import (
    SECONDS,
    LabelGroup,
    LabelRun,
    group_runs,
    number_or_nan,
    with_spread,
    write_tables,
)
from autosam_net.files import atomic_file


def write_label_efficiency(folder: Path, runs: Sequence[LabelRun]) -> None:
    """Write runs.csv (one row a run), table.csv (mean and deviation over seeds) and label_efficiency.png."""
    _draw(folder / "label_efficiency.png", write_tables(folder, runs))


def _draw(path: Path, groups: Sequence[LabelGroup]) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(group.name for group in groups))
    figure = Figure(figsize=(7, 5 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots()
    untrained = any(group.patients == 0 for group in groups)
    axes.set_xscale(**({"value": "symlog", "linthresh": 1, "linscale": 0.4} if untrained else {"value": "log"}))
    for index, name in enumerate(names):
        aside = 1.04 ** (index - (len(names) - 1) / 2)  # so that one does not hide another
        own = sorted((group for group in groups if group.name == name), key=lambda group: group.patients)
        runs = [run for group in own for run in group.runs]
        mean = [number_or_nan(group.mean["Dice"]) for group in own]
        spread = [number_or_nan(group.sd["Dice"]) for group in own]
        places = [group.patients * aside for group in own]
        axes.errorbar(places, mean, spread, color=f"C{index}", marker="s", capsize=4, label=name)
        dots = [run.patients * aside for run in runs], [number_or_nan(run.figures["Dice"]) for run in runs]
        axes.plot(*dots, "o", color=f"C{index}", alpha=0.5, markersize=4)
        if own[-1].patients == 0:
            axes.axhline(mean[-1], color=f"C{index}", linestyle=":")  # what labels have to beat
    ticks = sorted({group.patients for group in groups})
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labelled patients")
    axes.set_ylabel("mean Dice (dots: single runs, bars: standard deviation)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def label_efficiency_table(runs: Sequence[LabelRun]) -> str:
    """Return mean and standard deviation over the seeds as a table of text, one row a configuration and number."""
    from rich.table import Table

    table = Table("configuration", title="mean ± standard deviation over seeds")
    for heading in ("labelled", "runs", "Dice", "HD95", "minutes"):
        table.add_column(heading, justify="right")
    for group in group_runs(runs):
        minutes = sum(group.mean[name] or 0.0 for name in SECONDS) / 60
        figures = [with_spread(group, "Dice", 3), with_spread(group, "HD95", 2), f"{minutes:.1f}"]
        table.add_row(group.name, group.labelled, str(len(group.runs)), *figures)
    return as_text(table)
