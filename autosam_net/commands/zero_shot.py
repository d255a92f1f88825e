"""`autosam_zero_shot 27 --prompt box`: SAM as it is, prompted from the references of a fold's held-out cases."""

from __future__ import annotations

import argparse

from autosam_net.commands.cli import add_device, device_of, folders_of, load_libraries, new_parser, run

UPPER_BOUND = (
    "The prompts were drawn from the reference labels. These figures are an upper bound: whoever does not know the "
    "answer reaches less, and has to prompt every slice."
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_zero_shot --help`."""
    parser = new_parser(
        "Segment a fold's held-out cases with the unadapted SAM (encoder, prompt encoder and mask decoder of one "
        "checkpoint). The prompts are drawn from the reference labels: the figures are an upper bound of what a user "
        "reaches who does not know the answer."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "--prompt",
        choices=("box", "point"),
        required=True,
        help="for each class in each slice: the box around it, or the point deepest inside",
    )
    parser.add_argument("--fold", default="0", metavar="K", help="whose held-out cases are segmented (default 0)")
    parser.add_argument(
        "--points", type=int, default=1, metavar="N", help="with point: so many, the others at random (default 1)"
    )
    parser.add_argument(
        "--jitter", type=int, default=0, metavar="PIXELS", help="with box: move each side at random (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default 0)")
    add_device(parser)
    return run(_segment, parser, argv)


def _segment(arguments: argparse.Namespace) -> None:
    load_libraries()
    from autosam_net.data.dataset import find_dataset
    from autosam_net.evaluation.report import summary_table
    from autosam_net.inference.prompts import PromptOptions
    from autosam_net.inference.zero_shot import zero_shot_fold
    from autosam_net.training.check_plan import load_checked_plan

    options = PromptOptions(arguments.prompt, arguments.points, arguments.jitter, arguments.seed)
    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    output, summary = zero_shot_fold(dataset, plan, arguments.fold, options, device_of(arguments), folders)
    print(summary_table(summary))
    print(UPPER_BOUND)
    print(f"on the raw grid, {len(summary.cases)} cases: {output}")
