"""`autosam_compare_strategies 27 --encoders lite_medsam --labelled 1 7 --max-minutes 20`: what to tune, and how."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from autosam_net.commands.cli import (
    add_device,
    add_memory,
    demand_planned_memory,
    demand_positive,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    run,
)
from autosam_net.commands.trainings import (
    Training,
    add_trainings,
    check_held_out,
    check_recorded,
    new_training,
    parse_numbers,
    train_missing,
)
from autosam_net.data.configuration import STRATEGIES, parse_tuning
from autosam_net.errors import PlanError, UsageError
from autosam_net.parallel import in_own_process
from autosam_net.process import prepare_process

if TYPE_CHECKING:
    from autosam_net.data.configuration import Configuration
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.data.plan import Plan
    from autosam_net.evaluation.run_table import LabelRun
    from autosam_net.paths import Folders
    from autosam_net.training.run import TrainingOptions


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_compare_strategies --help`."""
    parser = new_parser(
        "Train and validate the head alone, the tuned decoder and the tuned encoder, each as long as the others or for "
        "as many steps, and compare Dice, trained parameters, memory and time. What is there is not trained again."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument("--encoders", nargs="+", metavar="NAME", help="of the catalogue (default: the plan's)")
    parser.add_argument("--head", default="vit", metavar="NAME", help="configuration of the plan (default vit)")
    known = f"some of {', '.join(STRATEGIES)} (default: all that the head allows)"
    parser.add_argument("--strategies", nargs="+", metavar="HOW", help=known)
    twins = "also the strategies that tune the encoder, each beginning with the head that was trained alone"
    parser.add_argument("--from-head", action="store_true", help=twins)
    blocks = "LoRA and adapters in the encoder's last N attention blocks, with what lies below cached (default: all)"
    parser.add_argument("--last-blocks", nargs="+", default=["all"], metavar="N", help=blocks)
    add_trainings(parser, seeds=1)
    parser.add_argument("--steps", type=int, metavar="N", help="compare after as many training steps, too or instead")
    add_device(parser)
    add_memory(parser)
    return run(_compare, parser, argv)


@dataclass(frozen=True)
class _Budget:
    """What each training of a table may spend: minutes, or steps."""

    minutes: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        return f"{self.minutes:g} minutes" if self.steps is None else f"{self.steps} steps"

    def limit(self, options: TrainingOptions, settings: Configuration) -> TrainingOptions:
        """Return the options of a training by `settings` that spends no more.

        Raises:
            UsageError: so many steps are no whole number of its epochs.
        """
        if self.steps is None:
            return replace(options, max_minutes=self.minutes)
        epochs, rest = divmod(self.steps, settings.iterations)
        if rest:
            raise UsageError(f"--steps {self.steps}: epochs have {settings.iterations} steps. Give a multiple of that.")
        return replace(options, epochs=epochs)


@dataclass(frozen=True)
class _Table:
    """Trainings of equal cost, in a folder of their own: the results of `folders`."""

    title: str
    dataset: DatasetSpec
    plan: Plan
    folders: Folders
    trainings: Sequence[Training]

    def fill(self) -> None:
        """Train what is missing, write the tables after each training, and show the last."""
        from autosam_net.evaluation.strategies import strategies_table, write_strategies

        output = self.folders.results
        train_missing(self.trainings, self._train, lambda: write_strategies(output, self.title, self._records()))
        print(f"{self.title}\n\n{strategies_table(self._records())}\n")
        print(f"runs.csv, table.csv, table.md and strategies.png: {output}", flush=True)

    def _train(self, training: Training) -> None:
        work = partial(_train_one, dataset=self.dataset, plan=self.plan, folders=self.folders)
        in_own_process(work, training, training.model.name)

    def _records(self) -> list[LabelRun]:
        return [training.record(_figures(training)) for training in self.trainings if training.is_finished]


def _train_one(training: Training, dataset: DatasetSpec, plan: Plan, folders: Folders) -> None:
    prepare_process()  # this process is new
    load_libraries("monai.losses")
    from autosam_net.inference.validate import train_and_validate

    train_and_validate(dataset, plan, training.configuration, training.fold, training.options, folders)


def _figures(training: Training) -> Mapping[str, float | None]:
    from autosam_net.evaluation.strategies import read_strategy_figures

    options, models = training.options, training.model.path.parent
    head = models / options.untuned.run_name(training.configuration) / training.folder.name
    return read_strategy_figures(training.folder, options.device, head if options.from_head else None)


def _compare(arguments: argparse.Namespace) -> None:
    demand_positive(arguments, "seeds", "max_minutes", "steps")
    numbers = parse_numbers(arguments, "labelled")
    parse_numbers(arguments, "last_blocks")  # names a wrong word at once, as the next line
    tunings = [parse_tuning(text) for text in arguments.strategies or STRATEGIES]
    if arguments.last_blocks != ["all"] and not any(tuning and tuning.in_blocks for tuning in tunings):
        raise UsageError("--last-blocks: goes with encoder+head:lora or encoder+head:adapter among the strategies")
    budgets = [_Budget(minutes=arguments.max_minutes), _Budget(steps=arguments.steps)]
    if not (budgets := [budget for budget in budgets if budget != _Budget()]):
        raise UsageError("--max-minutes M, --steps N: give one of them or both, to compare at equal cost")
    load_libraries("monai.losses")
    from autosam_net.data.dataset import find_dataset
    from autosam_net.training.check_plan import load_checked_plan

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json", arguments.head)
    check_held_out(dataset, arguments.fold, folders)
    tables = [_table(arguments, budget, numbers, dataset, plan, folders) for budget in budgets]
    for table in tables:
        table.fill()


def _table(
    arguments: argparse.Namespace,
    budget: _Budget,
    numbers: Sequence[int | None],
    dataset: DatasetSpec,
    plan: Plan,
    folders: Folders,
) -> _Table:
    """Return all trainings of a table in its order; a wrong word is named before the first of them begins."""
    from autosam_net.training.run import TrainingOptions

    always = TrainingOptions(device=device_of(arguments), resume=True, anyway=True)
    own = replace(folders, results=folders.results / dataset.name / "strategies" / str(budget).replace(" ", "_"))
    names = arguments.encoders or [plan.encoding.encoder]
    plan, configurations = _on_encoders(plan, arguments.head, names)
    variants = list(_variants(arguments, plan.configuration(arguments.head).head))
    # the last blocks alone take less, of which nothing is known
    whole = [f"tune:{tune}" for tune, last_blocks, _ in variants if last_blocks is None]
    demand_planned_memory(plan, "encode", f"train:{arguments.head}", *whole)
    trainings = []
    for (encoder, name), variant in product(configurations.items(), variants):
        tune, last_blocks, from_head = variant
        title = f"{encoder} {tune}" + (f", last {last_blocks} blocks" if last_blocks else "")
        title += ", from the head" if from_head else ""
        for number, seed in product(numbers, range(arguments.seeds)):
            options = replace(always, labelled=number, seed=seed, tune=tune, last_blocks=last_blocks)
            options = replace(options, from_head=from_head)
            settings = plan.for_configuration(name, options.tuning).configuration(name)
            options = budget.limit(options, settings)
            trainings.append(new_training(title, dataset, plan, name, arguments.fold, options, own))
    check_recorded(trainings, plan)
    return _Table(f"{plan.dataset}, {arguments.head}, {budget} each", dataset, plan, own, trainings)


def _on_encoders(plan: Plan, head: str, encoders: Sequence[str]) -> tuple[Plan, dict[str, str]]:
    """Return the plan with a configuration of the head for each encoder, and encoder -> its name.

    Raises:
        PlanError: an encoder does not take the planned inputs, or is none for this head.
        UsageError: there is no such encoder.
        WeightsError: weights are missing.
    """
    from autosam_net.encoders.weights import find_weights
    from autosam_net.training.check_plan import check_configuration

    names = {encoder: head if encoder == plan.encoding.encoder else f"{head}_{encoder}" for encoder in encoders}
    settings = plan.configuration(head)
    for encoder, name in names.items():
        find_weights(encoder, plan.encoding.weights_file if name == head else None)
        if name != head:
            plan = replace(plan, configurations={**plan.configurations, name: replace(settings, encoder=encoder)})
            check_configuration(plan, name)
    return plan, names


def _variants(arguments: argparse.Namespace, head: str) -> Iterator[tuple[str, int | None, bool]]:
    """Yield strategy, last blocks and whether to begin with the trained head; the head alone comes first.

    Raises:
        PlanError: a strategy that was asked for tunes nothing of this head.
    """
    from autosam_net.training.check_plan import check_tuning

    asked = list(arguments.strategies or STRATEGIES)
    if arguments.from_head:
        asked = ["head", *asked]
    for tune in dict.fromkeys(asked):
        tuning = parse_tuning(tune)
        try:
            check_tuning(tuning, head, f"--strategies {tune}")
        except PlanError:
            if arguments.strategies:
                raise
            continue
        blocks = parse_numbers(arguments, "last_blocks") if tuning and tuning.in_blocks else [None]
        starts = (False, True) if tuning and tuning.of_encoder and arguments.from_head else (False,)
        yield from product((tune,), blocks, starts)
