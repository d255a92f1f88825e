"""The log of a training as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from autosam_net.files import atomic_file

COLUMNS = ("epoch", "iteration", "learning_rate", "seconds", "loss", "batch_dice")  # a checkpoint keeps no order


def write_log(folder: Path, log: Sequence[dict[str, float]]) -> None:
    """Write training_log.csv and progress.png: loss, Dice on the training batches and learning rate by epoch."""
    with atomic_file(folder / "training_log.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(log)
    _draw(folder / "progress.png", log)


def _draw(path: Path, log: Sequence[dict[str, float]]) -> None:
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in log]
    figure = Figure(figsize=(9, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(epochs, [row["loss"] for row in log], "C0", label="training loss (Dice + cross entropy)")
    upper.set_ylabel("loss")
    right = upper.twinx()
    right.plot(epochs, [row["batch_dice"] for row in log], "C2", label="Dice on training batches")
    right.set_ylabel("Dice")
    right.set_ylim(0, 1)
    upper.legend(handles=[*upper.lines, *right.lines], loc="center right")
    lower.plot(epochs, [row["learning_rate"] for row in log], "C1")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
