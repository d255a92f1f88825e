"""`autosam_calibrate 27`: learn which Dice to expect of predictions, and say how well that works."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autosam_net.commands.cli import add_device, device_of, folders_of, load_libraries, new_parser, run
from autosam_net.errors import ModelError

if TYPE_CHECKING:
    from autosam_net.data.dataset import DatasetSpec
    from autosam_net.evaluation.expected_dice import ExpectedDice
    from autosam_net.paths import Folders
    from autosam_net.training.run import ModelFolder


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_calibrate --help`."""
    parser = new_parser(
        "Learn from the validation cases of trained folds which Dice to expect of predictions without a reference, and "
        "report how well expected and true Dice agree on patients left out. Training does this by itself; folds "
        "validated by an earlier version are validated again."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "-c", "--configurations", nargs="+", metavar="NAME", help="trained models, e.g. cnn (default: all)"
    )
    add_device(parser)
    return run(_calibrate, parser, argv)


def _calibrate(arguments: argparse.Namespace) -> None:
    load_libraries()
    from autosam_net.data.dataset import find_dataset
    from autosam_net.inference.choose import choose_models, models_of

    folders, device = folders_of(arguments), device_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    models = models_of(dataset.name, folders)
    if arguments.configurations is not None:
        models = choose_models(models, arguments.configurations, dataset.name)
    learnt = {model.path.name: _learn(model, dataset, device, folders) for model in models}
    print(_table({name: entry for name, entry in learnt.items() if entry is not None}))
    if nothing := [name for name, entry in learnt.items() if entry is None]:
        raise ModelError(
            f"{dataset.name}: nothing learnt for {', '.join(nothing)}: too few patients are held out. Train more folds."
        )


def _learn(model: ModelFolder, dataset: DatasetSpec, device: str, folders: Folders) -> ExpectedDice | None:
    from autosam_net.inference.calibrate import calibrate, has_confidences
    from autosam_net.inference.model_card import write_model_card
    from autosam_net.inference.validate import validate_fold
    from autosam_net.jsonio import read_sealed
    from autosam_net.training.cases import patients_of
    from autosam_net.training.check_plan import load_checked_plan

    for folder in map(model.fold, model.trained_folds()):
        held_out = tuple(read_sealed(folder / "run.json")["held_out"])
        if held_out and not has_confidences(folder):
            validate_fold(dataset, load_checked_plan(model.plan_file), folder, held_out, device, folders)
    learnt = calibrate(model, patients_of(dataset, folders))
    write_model_card(model, dataset, folders)
    return learnt


def _table(learnt: dict[str, ExpectedDice]) -> str:
    from rich.table import Table

    from autosam_net.evaluation.report import as_text

    table = Table(title="rank correlation with the true mean Dice (Spearman), patients left out")
    headings = ("cases", "expected", "agreement", "certainty", "error", "bad", "flagged", "rightly")
    table.add_column("model", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, entry in learnt.items():
        judged = entry.judgement
        correlations = _figures((judged.rank_correlation, judged.agreement, judged.certainty))
        counts = (judged.bad, judged.flagged, judged.rightly_flagged)
        table.add_row(name, str(entry.cases), *correlations, f"{judged.mean_error:.3f}", *map(str, counts))
    return as_text(table)


def _figures(values: Sequence[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.2f}" for value in values]
