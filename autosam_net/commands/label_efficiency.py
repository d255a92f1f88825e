"""`autosam_label_efficiency 27 -c cnn vit --labelled 1 3 7 --seeds 3`: accuracy against labelled patients."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.commands.cli import add_device, device_of, folders_of, load_libraries, new_parser, run
from autosam_net.errors import ModelError, UsageError
from autosam_net.jsonio import read_sealed, to_json

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.plan import Plan
    from autosam_net.evaluation.label_efficiency import LabelRun
    from autosam_net.paths import Folders
    from autosam_net.training.run import ModelFolder, TrainingOptions

WITHOUT_EFFECT = {"device", "resume", "overwrite"}  # options that do not change what a training is to reach


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_label_efficiency --help`."""
    parser = new_parser(
        "Train and validate configurations on few labelled patients, as autosam_train does with --labelled and --seed, "
        "and draw Dice against the number of patients. What is there already is not trained again."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument("-c", "--configurations", nargs="+", required=True, metavar="NAME", help="of the plan: cnn vit")
    parser.add_argument(
        "--labelled", nargs="+", required=True, metavar="N", help="numbers of patients to train on; all for every one"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="draws of the patients, 0 to N-1 (default 3)")
    parser.add_argument("--fold", default="0", metavar="K", help="whose held-out cases are predicted (default 0)")
    parser.add_argument(
        "--unlabelled", action="store_true", help="also with the fold's other patients as unlabelled cases"
    )
    limit = "limit of encoding and training together, for each run"
    parser.add_argument("--max-minutes", type=float, metavar="M", help=limit)
    add_device(parser)
    return run(_measure, parser, argv)


@dataclass(frozen=True)
class _Run:
    """One training that belongs to the curve.

    Attributes:
        patients: that it trains on.
        cases: part of today's split, called as in run.json -> cases.
    """

    configuration: str
    options: TrainingOptions
    patients: int
    cases: Mapping[str, Sequence[str]]
    model: ModelFolder
    fold: str

    @property
    def folder(self) -> Path:
        return self.model.fold(self.fold)

    @property
    def is_finished(self) -> bool:
        return (self.folder / "validation" / "summary.json").is_file()

    @property
    def record(self) -> LabelRun:
        from autosam_net.evaluation.label_efficiency import LabelRun, read_figures

        labelled = "all" if self.options.labelled is None else str(self.options.labelled)
        name = f"{self.configuration} (unlabelled)" if self.options.unlabelled else self.configuration
        return LabelRun(name, labelled, self.patients, self.options.seed, read_figures(self.folder))


def _measure(arguments: argparse.Namespace) -> None:
    numbers = [parse_labelled(text) for text in dict.fromkeys(arguments.labelled)]
    for name in ("seeds", "max_minutes"):
        if getattr(arguments, name) is not None and getattr(arguments, name) <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give a number above 0")
    load_libraries("monai.losses")
    from autosam_net.data.dataset import find_dataset
    from autosam_net.evaluation.label_efficiency import label_efficiency_table, write_label_efficiency
    from autosam_net.inference.validate import train_and_validate
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json")
    runs = _runs(arguments, numbers, dataset, plan, folders)
    output = folders.results / dataset.name / "label_efficiency"
    for position, job in enumerate(sorted(runs, key=lambda job: job.options.seed), start=1):
        if not job.is_finished:
            print(f"{position} of {len(runs)}: {job.model.name} fold {job.fold}")
            train_and_validate(dataset, plan, job.configuration, job.fold, job.options, folders)
        write_label_efficiency(output, [job.record for job in runs if job.is_finished])
    print(label_efficiency_table([job.record for job in runs]))
    print(f"runs.csv, table.csv and label_efficiency.png: {output}")


def parse_labelled(text: str) -> int | None:
    """Return the number of patients that "3" means; None for "all".

    Raises:
        UsageError: the text is neither.
    """
    if text == "all":
        return None
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"--labelled {text}: give numbers above 0, or all")
    return int(text)


def _runs(
    arguments: argparse.Namespace, numbers: Sequence[int | None], dataset: DatasetSpec, plan: Plan, folders: Folders
) -> list[_Run]:
    """Return all trainings in the order of the tables; a wrong word is named before the first of them begins."""
    from autosam_net.data.dataset import label_files
    from autosam_net.data.splits import held_out_cases, load_splits
    from autosam_net.training.cases import count_patients, training_split, unlabelled_part
    from autosam_net.training.run import ModelFolder, TrainingOptions

    splits = load_splits(folders.preprocessed / dataset.name / "splits_final.json")
    label_files(dataset, held_out_cases(splits, arguments.fold))
    always = TrainingOptions(max_minutes=arguments.max_minutes, device=device_of(arguments), resume=True)
    runs = []
    for name in dict.fromkeys(arguments.configurations):
        plan.configuration(name)
        for n, seed, unlabelled in product(numbers, range(arguments.seeds), (False, True)[: 1 + arguments.unlabelled]):
            options = replace(always, labelled=n, unlabelled=unlabelled, seed=seed)
            others = unlabelled_part(dataset, plan.for_configuration(name), arguments.fold, options, folders)
            split = training_split(dataset, arguments.fold, options, folders)
            cases = {"trained_on": split.train, "held_out": split.val, "unlabelled": others}
            model = ModelFolder(folders.results / dataset.name / options.run_name(name))
            runs.append(_Run(name, options, count_patients(split, dataset, folders), cases, model, arguments.fold))
    for job in runs:
        if (job.folder / "run.json").is_file():
            _check_recorded(job, plan)
    return runs


def _check_recorded(job: _Run, plan: Plan) -> None:
    """Refuse an earlier training by other settings or on other cases: a curve compares what was trained in one way.

    Raises:
        ModelError: its plan, its options or its cases were others.
    """
    from autosam_net.data.plan import load_plan

    job.model.check_plan(plan.for_configuration(job.configuration))
    manifest = read_sealed(job.folder / "run.json")
    recorded, options = manifest["options"], to_json(job.options)
    names = [field.name for field in fields(job.options) if field.name not in WITHOUT_EFFECT]
    differing = [f"{name} {recorded[name]}" for name in names if recorded.get(name, options[name]) != options[name]]
    if load_plan(job.model.plan_file).configurations.get(job.configuration) != plan.configuration(job.configuration):
        differing.append(f"other settings of {job.configuration} in its plan.json")
    parts = [name for name, cases in job.cases.items() if set(manifest.get(name, cases)) != set(cases)]
    differing += [f"other cases as {name} in its run.json" for name in parts]
    if differing:
        raise ModelError(f"{job.folder}: trained with {', '.join(differing)}. Move it away, and it is trained anew.")
