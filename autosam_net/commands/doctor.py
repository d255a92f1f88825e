"""`autosam_doctor`: whether this machine has all that the other commands need, and what to do where it has not."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from autosam_net.commands.checks import Finding, examine
from autosam_net.commands.cli import add_device, new_parser, run
from autosam_net.errors import AutosamError

WIDTH = 19  # of the longest topic, as long as all packages are there


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_doctor --help`."""
    parser = new_parser(
        "Look at folders, versions, device, memory, disk and weights, and encode and segment one slice. Exit code 2 "
        "where something has to be cured."
    )
    parser.add_argument(
        "--encoder", default="lite_medsam", metavar="NAME", help="for the self-test (default lite_medsam)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_device(parser)
    return run(_doctor, parser, argv)


def _doctor(arguments: argparse.Namespace) -> None:
    from autosam_net.jsonio import dumps

    findings = []
    for finding in examine(arguments.root, arguments.device, arguments.encoder):
        findings.append(finding)
        if not arguments.json:
            print(_lines(finding), flush=True)  # at once: weights take a while to be verified
    print(dumps({"findings": findings}) if arguments.json else _counts(findings))
    if problems := [finding.topic for finding in findings if finding.state == "problem"]:
        raise AutosamError(f"{len(problems)} to be cured: {', '.join(problems)}")


def _lines(finding: Finding) -> str:
    first = f"{finding.state:<7}  {finding.topic:<{WIDTH}}  {finding.found}"
    return first if finding.cure is None else f"{first}\n{'':<7}  {'':<{WIDTH}}  -> {finding.cure}"


def _counts(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.state for finding in findings)
    return ", ".join(f"{counts[state]} {state}" for state in ("ok", "warning", "problem"))
