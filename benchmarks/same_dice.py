"""`python -m benchmarks.same_dice`: what computing in bfloat16 costs in Dice, seed by seed.

The same head is trained and validated twice for each seed, on the same patients and batches: once with the encoder and
the head in bfloat16, as it is where the processor computes in it, once with both in float32.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from autosam_net.process import prepare_process
from autosam_net.training.run import TrainingOptions
from benchmarks.measuring import Row, Setting, table
from benchmarks.same_time import Contest, apart, contest_parser

PRECISIONS = "bfloat16", "float32"


def main() -> int:
    """Train and validate in both precisions and print the table."""
    parser = contest_parser("same_dice", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="0 .. N - 1 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of each training (default: as planned)")
    arguments = parser.parse_args()
    prepare_process()
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
    setting = replace(contest.setting, scratch=contest.setting.scratch / precision)
    contest = replace(contest, setting=setting)
    contest.share_cases()
    with patch("autosam_net.embedding.source.supports_bfloat16", lambda _: precision == "bfloat16"):
        return contest.validated_dice(contest.train())


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
