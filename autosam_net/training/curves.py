"""The log of a training as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from autosam_net.files import atomic_file

MEASURES = {"batch_dice": "Dice on batches", "pairs_found": "pairs found"}  # from 0 to 1, of some trainings each
COLUMNS = ("epoch", "iteration", "learning_rate", "seconds", "loss", *MEASURES)  # a checkpoint keeps no order


def write_log(folder: Path, log: Sequence[dict[str, float]]) -> None:
    """Write training_log.csv and progress.png: loss, measures (Dice on the batches) and learning rate by epoch."""
    columns = [name for name in COLUMNS if name in log[0]]
    with atomic_file(folder / "training_log.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(log)
    _draw(folder / "progress.png", log)


def _draw(path: Path, log: Sequence[dict[str, float]]) -> None:
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in log]
    figure = Figure(figsize=(9, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(epochs, [row["loss"] for row in log], "C0", label="training loss")
    upper.set_ylabel("loss")
    right = upper.twinx()
    right.set_ylim(0, 1)
    for name, title in MEASURES.items():
        if name in log[0]:
            right.plot(epochs, [row[name] for row in log], "C2", label=title)
            right.set_ylabel(title)
    upper.legend(handles=[*upper.lines, *right.lines], loc="center right")
    lower.plot(epochs, [row["learning_rate"] for row in log], "C1")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
