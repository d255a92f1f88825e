"""`autosam_train 27 vit 0`: train a head over the frozen encoder, or tune both, then validate it.

`torchrun --no-python --nproc-per-node 8 autosam_train 27 vit 0` does it in eight processes; see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.commands.cli import (
    add_device,
    add_resources,
    demand_planned_memory,
    demand_positive,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    run,
)
from autosam_net.data.configuration import STRATEGIES, parse_prompts, parse_tuning
from autosam_net.errors import UsageError

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.plan import Plan
    from autosam_net.paths import Folders
    from autosam_net.training.run import TrainingOptions


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_train --help`."""
    parser = new_parser(
        "Train a head over the frozen encoder, or tune both, on one fold; then validate on the raw grid."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument("configuration", help="vit, cnn, linear, unet, prompted, or another configuration of the plan")
    parser.add_argument("fold", help="0 to 4; a range 0-4 for one after the other; all for no validation part")
    parser.add_argument("--labelled", type=int, metavar="N", help="train on N patients only, drawn with --seed")
    parser.add_argument(
        "--unlabelled", action="store_true", help="learn from the other patients and imagesUn too, without labels"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights, batches and the draw of patients (default 0)"
    )
    parser.add_argument(
        "--tune", default="head", metavar="HOW", help=f"what learns, and how: {', '.join(STRATEGIES)} (default head)"
    )
    parser.add_argument(
        "--from-head", action="store_true", help="with --tune: begin with the trained head, trained first where missing"
    )
    parser.add_argument(
        "--pretrained", metavar="NAME", help="begin with what autosam_pretrain -c made, for configurations such as unet"
    )
    untried = "with --from-head: tune the encoder without a trial on labelled patients that are held out of it"
    parser.add_argument("--anyway", action="store_true", help=untried)
    blocks = "with LoRA or adapters: tune the encoder's last N attention blocks only, and cache what lies below"
    parser.add_argument("--last-blocks", type=int, metavar="N", help=blocks)
    parser.add_argument(
        "--prompts", metavar="KIND", help="of a head that needs them: box, point or both (default: as planned)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the planned number")
    parser.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="limit of encoding and training together, for each fold: half of it for encoding; one or two views of "
        "each slice and one epoch are done in any case",
    )
    parser.add_argument(
        "--fresh-views", action="store_true", help="augment and encode each batch anew: no cache, for a fast GPU"
    )
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="keep a fold trained with other settings"
    )
    parser.add_argument("--overwrite", action="store_true", help="throw an earlier training of this fold away")
    add_device(parser)
    add_resources(parser, workers=None)
    return run(_train, parser, argv)


@dataclass(frozen=True)
class _Job:
    dataset: DatasetSpec
    plan: Plan
    configuration: str
    options: TrainingOptions
    folders: Folders


def _train(arguments: argparse.Namespace) -> None:
    demand_positive(arguments, "epochs", "max_minutes", "labelled", "last_blocks")
    parse_tuning(arguments.tune)  # before torch is imported
    parse_prompts(arguments.prompts)
    load_libraries("monai.losses")
    from autosam_net.data.dataset import find_dataset, label_files
    from autosam_net.data.splits import load_splits, select_fold
    from autosam_net.training.check_plan import load_checked_plan
    from autosam_net.training.team import join_team, this_team

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    preprocessed = folders.preprocessed / dataset.name
    plan = load_checked_plan(preprocessed / "plan.json", arguments.configuration)
    demand_planned_memory(plan, "encode", f"train:{arguments.configuration}")
    if arguments.last_blocks is None:  # else less, of which nothing is known
        demand_planned_memory(plan, f"tune:{arguments.tune}")
    splits = load_splits(preprocessed / "splits_final.json")
    folds = parse_folds(arguments.fold)
    for fold in folds:
        label_files(dataset, select_fold(splits, fold).val)  # names a missing one before hours of training
    options = _options(arguments)
    with join_team(options.device) as device:
        job = _Job(dataset, plan, arguments.configuration, replace(options, device=device), folders)
        with nullcontext() if this_team().leads else _silence():
            for fold in folds:
                _train_fold(job, fold)


@contextmanager
def _silence() -> Iterator[None]:
    """Leave it to the first of several processes to say what all of them do."""
    logging.getLogger("autosam_net").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):
        yield


def parse_folds(text: str) -> list[str]:
    """Return the folds that "2", "0-4" or "all" mean.

    Raises:
        UsageError: the text is none of these.
    """
    if text == "all" or text.isdigit():
        return [text]
    bounds = re.fullmatch(r"(\d+)-(\d+)", text)
    if bounds is None or int(bounds[1]) > int(bounds[2]):
        raise UsageError(f"fold {text!r}: give a number (0), a range (0-4) or all")
    return [str(fold) for fold in range(int(bounds[1]), int(bounds[2]) + 1)]


def _options(arguments: argparse.Namespace) -> TrainingOptions:
    from autosam_net.training.run import TrainingOptions

    return TrainingOptions(
        labelled=arguments.labelled,
        unlabelled=arguments.unlabelled,
        seed=arguments.seed,
        epochs=arguments.epochs,
        fresh_views=arguments.fresh_views,
        max_minutes=arguments.max_minutes,
        device=device_of(arguments),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        tune=arguments.tune,
        from_head=arguments.from_head,
        pretrained=arguments.pretrained,
        last_blocks=arguments.last_blocks,
        anyway=arguments.anyway,
        prompts=arguments.prompts,
    )


def _train_fold(job: _Job, fold: str) -> None:
    from autosam_net.evaluation.report import summary_table
    from autosam_net.inference.validate import train_and_validate

    print(f"{job.dataset.name} {job.options.run_name(job.configuration)} fold {fold}")
    folder, summary = train_and_validate(job.dataset, job.plan, job.configuration, fold, job.options, job.folders)
    if summary is not None:
        print(summary_table(summary))
        print(f"validation on the raw grid, {len(summary.cases)} cases: {folder / 'validation'}")
    elif (folder / "validation").is_dir():
        print(f"validated already: {folder / 'validation' / 'summary.json'}")
    else:
        print(f"trained on all cases: {folder}")
    if (folder / "validation").is_dir():
        if job.options.unlabelled:
            print(_gain(job, folder, replace(job.options, unlabelled=False), "the unlabelled cases"))
        if job.options.from_head:
            print(_gain(job, folder, job.options.untuned, "tuning"))


def _gain(job: _Job, folder: Path, before: TrainingOptions, what: str) -> str:
    """Return in a line what something brought to the head that was trained before without it."""
    from autosam_net.evaluation.run_table import read_figures

    name = before.run_name(job.configuration)
    without, with_it = (
        read_figures(model / folder.name)["Dice"] or 0.0 for model in (folder.parent.parent / name, folder.parent)
    )
    gain = f"mean Dice {without:.3f} without {what} ({name}), {with_it:.3f} with {what}, trained longer"
    return gain if with_it >= without else f"{gain}: {what} did harm; predict with -c {name}"
