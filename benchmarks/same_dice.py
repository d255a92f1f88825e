"""`python -m benchmarks.same_dice`: what computing in bfloat16 costs in Dice, seed by seed.

The same head is trained and validated twice for each seed, on the same patients and batches: once with the encoder and
the head in bfloat16, as it is where the processor computes in it, once with both in float32.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from autosam_net.allocator import keep_freed_memory
from autosam_net.inference.validate import validate_fold
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from benchmarks.measuring import Row, Setting, table
from benchmarks.same_time import Contest, apart, mean_dice

PRECISIONS = "bfloat16", "float32"


def main() -> int:
    """Train and validate in both precisions and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_dice", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="folder with raw/ and preprocessed/; only read")
    parser.add_argument("-d", "--dataset", required=True, help="number or name of a data set that is planned there")
    parser.add_argument("-c", "--configuration", default="cnn", help="of the plan (default: %(default)s)")
    parser.add_argument("--fold", default="0", help="default: %(default)s")
    parser.add_argument("--labelled", type=int, default=1, help="patients to learn from (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="0 .. N - 1 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of each training (default: as planned)")
    parser.add_argument("--cases", type=int, help="validation cases to compare on (default: all of the fold)")
    arguments = parser.parse_args()
    keep_freed_memory()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(arguments.root, arguments.dataset, Path(scratch), 0, time.perf_counter)
        for seed in range(arguments.seeds):
            options = TrainingOptions(arguments.labelled, seed=seed, epochs=arguments.epochs)
            contest = Contest(setting, arguments.configuration, arguments.fold, options, arguments.cases)
            results.append({precision: apart(dice_in, contest, precision) for precision in PRECISIONS})
            print(f"seed {seed}: {results[-1]}", file=sys.stderr, flush=True)
    print("\n".join(table(rows_of(results))))
    return 0


def dice_in(contest: Contest, precision: str) -> float:
    """Return the mean Dice of a head that was trained and validated in a precision, whatever suits this machine."""
    setting = contest.setting
    dataset, plan = setting.dataset, setting.plan.for_configuration(contest.configuration)
    contest.share_cases()
    folders = replace(contest.folders, results=contest.folders.results / precision)
    with patch("autosam_net.embedding.embed.supports_bfloat16", lambda _: precision == "bfloat16"):
        folder = train_head(dataset, plan, contest.configuration, contest.fold, contest.options, folders)
        return mean_dice(validate_fold(dataset, plan, folder, contest.validation_cases, "cpu", folders))


def rows_of(results: Sequence[Mapping[str, float]]) -> list[Row]:
    """Return a row for each seed's Dice in each precision, and how far bfloat16 is above float32 on average."""
    rows = [
        Row(f"seed {seed}, {precision}", ratio=found[precision], to="mean Dice")
        for seed, found in enumerate(results)
        for precision in PRECISIONS
    ]
    differences = [found["bfloat16"] - found["float32"] for found in results]
    figures = ", ".join(f"{difference:+.4f}" for difference in differences)
    goal = "-0.002 or more"
    return [*rows, Row(f"bfloat16 - float32, mean of {figures}", ratio=statistics.mean(differences), goal=goal)]


if __name__ == "__main__":
    sys.exit(main())
