"""`autosam_zero_shot 27 --prompt box`: SAM as it is, prompted from the references of a fold's held-out cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import add_device, device_of, folders_of, load_libraries, new_parser, run
from autosam_net.data.prompts import PROMPT_KINDS, PromptOptions
from autosam_net.errors import UsageError

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
        choices=PROMPT_KINDS,
        required=True,
        help="for each class in each slice: the box around it, the point deepest inside, or both",
    )
    parser.add_argument("--fold", default="0", metavar="K", help="whose held-out cases are segmented (default 0)")
    parser.add_argument(
        "--points", type=int, default=1, metavar="N", help="with points: so many, the others at random (default 1)"
    )
    parser.add_argument(
        "--jitter", type=int, default=0, metavar="PIXELS", help="with boxes: move each side at random (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default 0)")
    parser.add_argument(
        "--holes", action="store_true", help="prompt a ring twice, filled and for its hole: the first less the second"
    )
    what = "write the prompts for autosam_predict --prompts, and segment nothing"
    parser.add_argument("--write-prompts", type=Path, metavar="FILE", help=what)
    add_device(parser)
    return run(_segment, parser, argv)


def _segment(arguments: argparse.Namespace) -> None:
    options = PromptOptions(arguments.prompt, arguments.points, arguments.jitter, arguments.seed, holes=arguments.holes)
    if options.problem is not None:
        raise UsageError(f"--{options.problem}")
    load_libraries()
    from autosam_net.data.dataset import find_dataset
    from autosam_net.evaluation.report import summary_table
    from autosam_net.inference.zero_shot import ZeroShotRun
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    zero_shot = ZeroShotRun(dataset, plan, arguments.fold, options, folders)
    if arguments.write_prompts is not None:
        count = zero_shot.write_prompts(arguments.write_prompts)
        print(f"{count} prompts for {len(zero_shot.cases)} cases, drawn from the references: {arguments.write_prompts}")
        return
    summary = zero_shot.segment(device_of(arguments))
    print(summary_table(summary))
    print(UPPER_BOUND)
    print(f"on the raw grid, {len(summary.cases)} cases: {zero_shot.folder / 'validation'}")
