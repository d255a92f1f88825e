"""`autosam_encode -d 27`: run the encoder ahead of time over all preprocessed cases."""

from __future__ import annotations

import argparse

from autosam_net.commands.cli import (
    add_device,
    add_parts,
    add_resources,
    demand_planned_memory,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    part_of,
    run,
)
from autosam_net.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_encode --help`."""
    parser = new_parser("Compute the embeddings of all preprocessed cases that the cache lacks.")
    parser.add_argument("-d", "--dataset", metavar="ID", required=True, help="number or name of the data set")
    whose = "whose encoder runs (default: the encoder of the plan)"
    parser.add_argument("-c", "--configuration", metavar="NAME", help=whose)
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="views of a slice, the plain one included (default 1)"
    )
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these cases")
    add_device(parser)
    add_parts(parser)
    add_resources(parser, workers=None)
    return run(_encode, parser, argv)


def _encode(arguments: argparse.Namespace) -> None:
    if arguments.views < 1:
        raise UsageError(f"--views {arguments.views}: give 1 or more")
    load_libraries()
    from autosam_net.data.dataset import find_dataset
    from autosam_net.embedding.embed import embed_dataset, embeddings_folder, preprocessed_cases
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    if arguments.configuration is not None:
        plan = plan.for_configuration(arguments.configuration)
    demand_planned_memory(plan, "encode")
    cases = part_of(arguments).of(arguments.cases or preprocessed_cases(dataset, folders))
    entries = embed_dataset(dataset, plan, folders, cases, arguments.views, device_of(arguments))
    size = sum(entry.embedding.nbytes + entry.labels.nbytes for entry in entries) / 2**20
    print(f"{len(entries)} entries, {size:.0f} MiB, in {embeddings_folder(dataset, folders)}")
