"""`autosam_report 27`: one HTML file that shows data, plan, trainings and results of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import UsageError

REPORT_FILE = "report.html"


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_report --help`."""
    parser = new_parser(
        "Write one HTML file about a data set, to be opened without a network: how good the trained models are, on "
        "which cases they fail, and why the plan is what it is. Works before anything is trained, too."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "-c", "--configurations", nargs="+", metavar="NAME", help="trained models to report (default: all), e.g. cnn"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"(default: {REPORT_FILE} in the results)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of -o; the default one always is")
    return run(_report, parser, argv)


def _report(arguments: argparse.Namespace) -> None:
    from autosam_net.data.dataset import find_dataset
    from autosam_net.reporting.report import write_report

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    output = arguments.output or folders.results / dataset.name / REPORT_FILE
    if output.is_dir():
        raise UsageError(f"{output}: is a folder. Name a file, such as {output / REPORT_FILE}.")
    if output.exists() and arguments.output is not None and not arguments.overwrite:
        raise UsageError(f"{output} exists. Give --overwrite to replace it, or another file.")
    write_report(dataset, output, folders, arguments.configurations)
    print(f"report: {output} ({output.stat().st_size / 2**20:.1f} MiB)")
