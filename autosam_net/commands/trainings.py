"""Trainings that a table compares: which they are, which are done, and that these are what was asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.errors import ModelError, UsageError
from autosam_net.jsonio import read_sealed, to_json
from autosam_net.parallel import working

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.plan import Plan
    from autosam_net.evaluation.run_table import LabelRun
    from autosam_net.paths import Folders
    from autosam_net.training.run import ModelFolder, TrainingOptions

WITHOUT_EFFECT = {"device", "resume", "overwrite", "anyway"}  # options that do not change what a training is to reach


@dataclass(frozen=True)
class Training:
    """One training that belongs to a table.

    Attributes:
        name: in the table.
        patients: that it trains on.
        cases: part of today's split, called as in run.json -> cases.
    """

    name: str
    configuration: str
    options: TrainingOptions
    patients: int
    cases: Mapping[str, Sequence[str]]
    model: ModelFolder
    fold: str

    @property
    def folder(self) -> Path:
        """Return the folder of the fold."""
        return self.model.fold(self.fold)

    @property
    def is_finished(self) -> bool:
        """Return whether it is trained and validated."""
        return (self.folder / "validation" / "summary.json").is_file()

    def record(self, figures: Mapping[str, float | None]) -> LabelRun:
        """Return its row of the table."""
        from autosam_net.evaluation.run_table import LabelRun, read_prompts

        labelled = "all" if self.options.labelled is None else str(self.options.labelled)
        prompts = read_prompts(self.folder)
        return LabelRun(self.name, labelled, self.patients, self.options.seed, figures, prompts)


def add_trainings(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Add the flags that say on which patients trainings are compared; `seeds` is the default of --seeds."""
    parser.add_argument(
        "--labelled", nargs="+", required=True, metavar="N", help="numbers of patients to train on; all for every one"
    )
    drawn = f"draws of the patients, 0 to N-1 (default {seeds})"
    parser.add_argument("--seeds", type=int, default=seeds, metavar="N", help=drawn)
    parser.add_argument("--fold", default="0", metavar="K", help="whose held-out cases are predicted (default 0)")
    limit = (
        "limit of encoding and training together, for each run: half of it for encoding; one or two views of each "
        "slice and one epoch are done in any case"
    )
    parser.add_argument("--max-minutes", type=float, metavar="M", help=limit)


def parse_numbers(arguments: argparse.Namespace, name: str) -> list[int | None]:
    """Return the numbers that the words of a flag such as --labelled mean, each once; None for "all".

    Raises:
        UsageError: a word is no such number.
    """
    numbers: list[int | None] = []
    for text in dict.fromkeys(getattr(arguments, name)):
        if text != "all" and (not text.isdigit() or int(text) == 0):
            raise UsageError(f"--{name.replace('_', '-')} {text}: give numbers above 0, or all")
        numbers.append(None if text == "all" else int(text))
    return numbers


def new_training(
    name: str,
    dataset: DatasetSpec,
    plan: Plan,
    configuration: str,
    fold: str,
    options: TrainingOptions,
    folders: Folders,
) -> Training:
    """Return a training to be done; nothing is computed.

    Raises:
        UsageError: there is no such fold, or not so many patients.
    """
    from autosam_net.training.cases import count_patients, training_split, unlabelled_part
    from autosam_net.training.run import ModelFolder

    others = unlabelled_part(dataset, plan.for_configuration(configuration), fold, options, folders)
    split = training_split(dataset, fold, options, folders)
    cases = {"trained_on": split.train, "held_out": split.val, "unlabelled": others}
    model = ModelFolder(folders.results / dataset.name / options.run_name(configuration))
    return Training(name, configuration, options, count_patients(split, dataset, folders), cases, model, fold)


def check_held_out(dataset: DatasetSpec, fold: str, folders: Folders) -> None:
    """Refuse a fold that holds nothing out, or cases without labels.

    Raises:
        DatasetError: a case has no label file.
        UsageError: there is no such fold, or it holds no case out.
    """
    from autosam_net.data.dataset import label_files
    from autosam_net.data.splits import held_out_cases, load_splits

    splits = load_splits(folders.preprocessed / dataset.name / "splits_final.json")
    label_files(dataset, held_out_cases(splits, fold))


def check_recorded(trainings: Sequence[Training], plan: Plan) -> None:
    """Refuse earlier trainings by other settings or on other cases: a table compares what was trained in one way.

    Raises:
        ModelError: the plan, the options or the cases of one were others.
    """
    for training in trainings:
        if (training.folder / "run.json").is_file():
            _check_one(training, plan)


def _check_one(training: Training, plan: Plan) -> None:
    from autosam_net.data.plan import load_plan

    followed = plan.for_configuration(training.configuration, training.options.tuning, training.options.prompt_kind)
    training.model.check_plan(followed)
    manifest = read_sealed(training.folder / "run.json")
    recorded, options = manifest["options"], to_json(training.options)
    names = [field.name for field in fields(training.options) if field.name not in WITHOUT_EFFECT]
    differing = [f"{name} {recorded[name]}" for name in names if recorded.get(name, options[name]) != options[name]]
    settings = load_plan(training.model.plan_file).configurations.get(training.configuration)
    if settings != followed.configuration(training.configuration):
        differing.append(f"other settings of {training.configuration} in its plan.json")
    parts = [name for name, cases in training.cases.items() if set(manifest.get(name, cases)) != set(cases)]
    differing += [f"other cases as {name} in its run.json" for name in parts]
    if differing:
        raise ModelError(
            f"{training.folder}: trained with {', '.join(differing)}. Move it away, and it is trained anew."
        )


def train_missing(
    trainings: Sequence[Training], train: Callable[[Training], object], write: Callable[[], None]
) -> None:
    """Train what is not finished, those of the first seed first.

    Args:
        write: called after each and at the end; a stopped command leaves the tables of what is there.
    """
    for position, training in enumerate(sorted(trainings, key=lambda training: training.options.seed), start=1):
        if not training.is_finished:
            print(f"{position} of {len(trainings)}: {training.model.name} fold {training.fold}", flush=True)
            train(training)
            _shown(write)
    _shown(write)


def _shown(write: Callable[[], None]) -> None:
    with working("write tables"):  # and import what draws the plot
        write()
