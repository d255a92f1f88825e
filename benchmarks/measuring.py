"""What is measured, and how: variants in turn, so that what else the machine does strikes all alike."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import CaseFiles, DatasetSpec, find_dataset, training_cases
from autosam_net.data.plan import Plan, load_plan
from autosam_net.embedding.embed import preprocessed_cases
from autosam_net.paths import Folders, find_folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case

ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        seconds: the median, for one `unit`; None for a figure that is no time.
        ratio: against `to`: how many times as fast, or what it costs beside it, or another figure in its own words.
        goal: what the ratio should be, if anything.
    """

    variant: str
    unit: str = ""
    seconds: float | None = None
    ratio: float | None = None
    to: str = ""
    goal: str = ""


@dataclass(frozen=True)
class Setting:
    """The data that all benchmarks take: a data set, planned and preprocessed; it is only read.

    Attributes:
        scratch: an empty folder for what is written.
        cases: to take, the first ones.
        clock: of the wall, or of the processor where the machine does other work meanwhile.
    """

    root: Path
    dataset_id: str
    scratch: Path
    cases: int
    clock: Callable[[], float]

    @property
    def folders(self) -> Folders:
        """Return the three folders."""
        return find_folders(self.root)

    @property
    def dataset(self) -> DatasetSpec:
        """Return the raw data set."""
        return find_dataset(self.dataset_id, self.folders)

    @property
    def plan(self) -> Plan:
        """Return its plan."""
        return load_plan(self.folders.preprocessed / self.dataset.name / "plan.json")

    def loaded_cases(self) -> list[PreprocessedCase]:
        """Return the first preprocessed cases."""
        names = preprocessed_cases(self.dataset, self.folders)[: self.cases]
        return [load_case(cases_folder(self.dataset, self.folders) / name) for name in names]

    def spread_cases(self) -> list[CaseFiles]:
        """Return raw cases from all over the data set: of several patients, as a plan needs them."""
        cases = training_cases(self.dataset)
        return cases[:: max(1, len(cases) // self.cases)][: self.cases]

    def in_turn(
        self, variants: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: bool = True
    ) -> dict[str, float]:
        """Return variant -> median of its seconds, each measured in every round, after one round to warm up.

        Each time is said on stderr, so that long benchmarks tell where they are.

        Args:
            warm_up: not needed by variants that start processes of their own each time.
        """
        times: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(rounds + warm_up):
            for name, work in variants.items():
                start = self.clock()
                work()
                seconds = self.clock() - start
                if turn >= warm_up:
                    print(f"{name}: {in_units(seconds)}", file=sys.stderr, flush=True)
                    times[name].append(seconds)
        return {name: statistics.median(values) for name, values in times.items()}


def processor_time() -> float:
    """Return the seconds of the processor that this process has taken, and those of the processes it waited for."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def table(rows: Iterable[Row]) -> list[str]:
    """Return the rows as a table in Markdown."""
    lines = ["| variant | time | ratio | goal |", "|---|---|---|---|"]
    for row in rows:
        seconds = "" if row.seconds is None else f"{in_units(row.seconds)} a {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g} {row.to}".strip()
        lines.append(f"| {row.variant} | {seconds} | {ratio} | {row.goal} |")
    return lines


def in_units(seconds: float) -> str:
    """Return seconds as `1.5 s` or `12 ms`."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
