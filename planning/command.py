"""`autosam_plan_and_preprocess -d 27`: check, measure, decide, preprocess."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.commands.cli import (
    add_device,
    add_parts,
    add_resources,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    part_of,
    run,
)
from autosam_net.errors import UsageError
from autosam_net.parallel import WHOLE, Part
from autosam_net.paths import find_folders

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.fingerprint import Fingerprint
    from autosam_net.data.plan import Plan, StepEstimate
    from autosam_net.paths import Folders
    from planning.settle_plan import PlanRequest


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_plan_and_preprocess --help`."""
    parser = new_parser("Check and measure data sets, plan how they are segmented, and preprocess them.")
    parser.add_argument("-d", "--dataset", nargs="+", required=True, metavar="ID", help="numbers or names of data sets")
    parser.add_argument("--encoder", metavar="NAME", help="use this encoder (default: by device and time)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights in place of the encoder's published ones")
    parser.add_argument("--check-only", action="store_true", help="stop after the check")
    parser.add_argument("--plan-only", action="store_true", help="stop before preprocessing")
    parser.add_argument("--replan", action="store_true", help="make plan.json anew, even if it was edited by hand")
    add_device(parser)
    add_parts(parser)
    add_resources(parser)
    return run(_plan_all, parser, argv)


@dataclass(frozen=True)
class _Job:
    dataset: DatasetSpec
    folders: Folders
    arguments: argparse.Namespace

    @property
    def folder(self) -> Path:
        return self.folders.preprocessed / self.dataset.name


def _plan_all(arguments: argparse.Namespace) -> None:
    from autosam_net.data.dataset import find_dataset
    from planning.rules.encoder import find_encoder

    if arguments.encoder is not None:
        find_encoder(arguments.encoder)
    if arguments.weights is not None and not arguments.weights.is_file():
        raise UsageError(f"--weights {arguments.weights}: no such file. Give the file that holds the weights.")
    folders = folders_of(arguments)
    datasets = [find_dataset(identifier, folders) for identifier in arguments.dataset]
    part = part_of(arguments)
    for dataset in datasets:
        job = _Job(dataset, folders, arguments)
        _plan_one(job) if part == WHOLE else _do_part(job, part)


def _do_part(job: _Job, part: Part) -> None:
    """Measure, or else preprocess by the plan that there is, a share of the cases; the plan is made for all of them."""
    from autosam_net.preprocessing.preprocess import preprocess_dataset
    from autosam_net.training.check_plan import load_checked_plan
    from planning.extract_fingerprint import measure_part

    share = f"part {part.index} of {part.count}"
    if job.arguments.check_only:
        measured = measure_part(job.dataset, part, job.folders, job.arguments.workers)
        print(f"{job.dataset.name}: {share}: checked {len(measured)} cases, no problem")
        return
    if job.arguments.plan_only:
        raise UsageError("--plan-only: a plan is made for all cases. Leave --num-parts and --part-id out.")
    plan = load_checked_plan(job.folder / "plan.json")
    cases = preprocess_dataset(job.dataset, plan, job.folders, job.arguments.workers, part)
    print(f"{job.dataset.name}: {share}: preprocessed {len(cases)} cases in {job.folder}")


def _plan_one(job: _Job) -> None:
    from planning.extract_fingerprint import extract_fingerprint
    from planning.settle_plan import PlanRequest

    print(f"{job.dataset.name}: {job.dataset.folder}", flush=True)
    fingerprint = extract_fingerprint(job.dataset, job.folders, job.arguments.workers)
    print(f"checked: {len(fingerprint.cases)} cases, no problem", flush=True)
    if job.arguments.check_only:
        return
    request = PlanRequest(job.arguments.encoder, job.arguments.weights, job.arguments.replan)
    plan = plan_dataset(job.dataset, fingerprint, job.folders, request, lambda: device_of(job.arguments))
    _show(plan)
    if job.arguments.plan_only:
        print(f"plan: {job.folder / 'plan.json'}")
        return
    from autosam_net.preprocessing.preprocess import preprocess_dataset

    cases = preprocess_dataset(job.dataset, plan, job.folders, job.arguments.workers)
    print(f"preprocessed: {len(cases)} cases in {job.folder}")


def plan_dataset(
    dataset: DatasetSpec,
    fingerprint: Fingerprint,
    folders: Folders | None = None,
    request: PlanRequest | None = None,
    find_device: Callable[[], str] = lambda: "cpu",
) -> Plan:
    """Write plan.json and splits_final.json, or keep those that hold, and return the plan.

    Args:
        find_device: returns the device to plan for, as torch names it; called only where a new plan is made.

    Raises:
        PlanError: a plan or split edited by hand has a wrong value, or there is one patient only.
        WeightsError: the encoder's weights are missing.
    """
    from autosam_net.data.splits import make_splits
    from autosam_net.files import alone
    from planning.settle_plan import PlanRequest, settle_plan
    from planning.settle_splits import given_splits, settle_splits

    folders, request = folders or find_folders(), request or PlanRequest()
    folder = folders.preprocessed / dataset.name
    given = given_splits(dataset, fingerprint.groups, folders)
    if given is None:
        make_splits(fingerprint.groups)  # refuses a single group before anything is measured or written
    folds = None if given is None else len(given)

    def make() -> Plan:
        load_libraries()  # first: to find the device takes PyTorch
        return new_plan(dataset, fingerprint, folder, request.encoder, request.weights, folds, find_device())

    with alone(folder):
        plan = settle_plan(dataset, fingerprint, folds, folder, request, make)
        settle_splits(folder, given, fingerprint.groups, plan.folds)
        _copy_if_changed(dataset.folder / "dataset.json", folder / "dataset.json")
    return plan


def new_plan(
    dataset: DatasetSpec,
    fingerprint: Fingerprint,
    folder: Path,
    encoder: str | None = None,
    weights: Path | None = None,
    given_folds: int | None = None,
    device: str = "cpu",
) -> Plan:
    """Return a new plan after a short measurement of this machine.

    Args:
        folder: in which preprocessed data will lie; its disk counts.
        given_folds: of splits that came with the data.

    Raises:
        WeightsError: the encoder's weights are missing.
    """
    from planning.make_plan import choose_inputs, make_plan
    from planning.probe import probe_machine, probe_speed

    machine = probe_machine(device, folder)
    _, encoding, _ = choose_inputs(dataset, fingerprint, machine, encoder, weights)
    probe = probe_speed(machine, encoding, dataset.labels)
    return make_plan(dataset, fingerprint, probe, encoder, weights, given_folds)


def _copy_if_changed(source: Path, target: Path) -> None:
    from autosam_net.files import atomic_file

    if not target.is_file() or target.read_bytes() != source.read_bytes():
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


def _show(plan: Plan) -> None:
    """Print decisions with their reasons, and what the steps will cost."""
    from autosam_net.data.decisions import decisions

    values = decisions(plan)
    rows = [(key, value, plan.reasons.get(key, "-")) for key, value in values.items()]
    _print_table(("decision", "value", "reason"), rows)
    costs = [
        (step, _duration(cost.seconds), _size(cost.disk_mib), _memory(cost)) for step, cost in plan.estimates.items()
    ]
    if costs:
        print("expected on the machine that planned (encode and train: one fold; predict: one case; memory: the peak)")
        _print_table(("step", "time", "disk", "memory"), costs)


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            print("  " + "  ".join([f"{row[0]}:".ljust(16), *row[1:]]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _memory(cost: StepEstimate) -> str:
    return _size(cost.memory_mib) + (f", GPU {_size(cost.gpu_memory_mib)}" if cost.gpu_memory_mib else "")


def _size(mib: float) -> str:
    if not mib:
        return "-"
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
