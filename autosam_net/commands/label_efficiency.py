"""`autosam_label_efficiency 27 -c cnn vit --labelled 1 3 7 --seeds 3`: accuracy against labelled patients."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from autosam_net.commands.cli import add_device, demand_positive, device_of, folders_of, load_libraries, new_parser, run
from autosam_net.commands.trainings import (
    Training,
    add_trainings,
    check_held_out,
    check_recorded,
    new_training,
    parse_numbers,
    train_missing,
)
from autosam_net.data.prompts import PROMPT_KINDS, PromptOptions

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.plan import Plan
    from autosam_net.evaluation.run_table import LabelRun
    from autosam_net.paths import Folders


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_label_efficiency --help`."""
    parser = new_parser(
        "Train and validate configurations on few labelled patients, as autosam_train does with --labelled and --seed, "
        "and draw Dice against the number of patients. What is there already is not trained again."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument("-c", "--configurations", nargs="+", required=True, metavar="NAME", help="of the plan: cnn vit")
    add_trainings(parser, seeds=3)
    parser.add_argument(
        "--unlabelled", action="store_true", help="also with the fold's other patients as unlabelled cases"
    )
    parser.add_argument(
        "--zero-shot",
        nargs="+",
        default=(),
        choices=(*PROMPT_KINDS, *(f"{kind}-holes" for kind in PROMPT_KINDS)),
        metavar="KIND",
        help="also SAM as it is, at 0 patients, prompted from the references: box, point, both; box-holes for rings",
    )
    add_device(parser)
    return run(_measure, parser, argv)


def _measure(arguments: argparse.Namespace) -> None:
    numbers = parse_numbers(arguments, "labelled")
    demand_positive(arguments, "seeds", "max_minutes")
    load_libraries("monai.losses")
    from autosam_net.data.dataset import find_dataset
    from autosam_net.evaluation.label_efficiency import label_efficiency_table, write_label_efficiency
    from autosam_net.inference.validate import train_and_validate
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    trainings = _trainings(arguments, numbers, dataset, plan, folders)
    untrained = _zero_shot_records(arguments, dataset, plan, folders)
    output = folders.results / dataset.name / "label_efficiency"

    def train(training: Training) -> None:
        train_and_validate(dataset, plan, training.configuration, training.fold, training.options, folders)

    train_missing(trainings, train, lambda: write_label_efficiency(output, [*untrained, *_records(trainings)]))
    print(label_efficiency_table([*untrained, *_records(trainings)]))
    print(f"runs.csv, table.csv and label_efficiency.png: {output}")


def _zero_shot_records(
    arguments: argparse.Namespace, dataset: DatasetSpec, plan: Plan, folders: Folders
) -> list[LabelRun]:
    """Return what SAM reaches as it is, segmenting what was not segmented before."""
    if not arguments.zero_shot:
        return []
    from autosam_net.evaluation.run_table import LabelRun, read_figures, read_prompts
    from autosam_net.inference.zero_shot import ZeroShotRun

    runs = []
    for text in dict.fromkeys(arguments.zero_shot):
        kind, _, holes = text.partition("-")
        runs.append(ZeroShotRun(dataset, plan, arguments.fold, PromptOptions(kind, holes=bool(holes)), folders))
    for job in [job for job in runs if not job.is_finished]:
        print(f"{job.folder.parent.name} fold {job.fold}", flush=True)
        job.segment(device_of(arguments))
    return [
        LabelRun("zero-shot", "0", 0, job.options.seed, read_figures(job.folder), read_prompts(job.folder))
        for job in runs
    ]


def _records(trainings: Sequence[Training]) -> list[LabelRun]:
    from autosam_net.evaluation.run_table import read_figures

    return [training.record(read_figures(training.folder)) for training in trainings if training.is_finished]


def _trainings(
    arguments: argparse.Namespace, numbers: Sequence[int | None], dataset: DatasetSpec, plan: Plan, folders: Folders
) -> list[Training]:
    """Return all trainings in the order of the tables; a wrong word is named before the first of them begins."""
    from autosam_net.training.run import TrainingOptions

    check_held_out(dataset, arguments.fold, folders)
    always = TrainingOptions(max_minutes=arguments.max_minutes, device=device_of(arguments), resume=True)
    trainings = []
    for name in dict.fromkeys(arguments.configurations):
        plan.configuration(name)
        for n, seed, unlabelled in product(numbers, range(arguments.seeds), (False, True)[: 1 + arguments.unlabelled]):
            options = replace(always, labelled=n, unlabelled=unlabelled, seed=seed)
            title = f"{name} (unlabelled)" if unlabelled else name
            trainings.append(new_training(title, dataset, plan, name, arguments.fold, options, folders))
    check_recorded(trainings, plan)
    return trainings
