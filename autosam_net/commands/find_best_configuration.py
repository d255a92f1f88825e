"""`autosam_find_best_configuration 27`: heads and pairs of heads compared, the best kept for prediction."""

from __future__ import annotations

import argparse

from autosam_net.commands.cli import add_device, device_of, folders_of, load_libraries, new_parser, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_find_best_configuration --help`."""
    parser = new_parser(
        "Compare trained heads and all pairs of them on the cases that their folds held out, choose the best and its "
        "post-processing, and keep the choice for autosam_predict."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="NAME",
        help="trained models to compare (default: all of the plan, e.g. cnn vit)",
    )
    parser.add_argument(
        "-f", "--folds", nargs="+", metavar="K", help="folds to compare on (default: all that they share)"
    )
    add_device(parser)
    return run(_find_best_configuration, parser, argv)


def _find_best_configuration(arguments: argparse.Namespace) -> None:
    load_libraries()
    from autosam_net.data.dataset import find_dataset
    from autosam_net.inference.best import BEST_FILE
    from autosam_net.inference.find_best import INSTRUCTIONS_FILE, find_best_configuration

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    find_best_configuration(dataset, arguments.configurations, arguments.folds, device_of(arguments), folders)
    results = folders.results / dataset.name
    print((results / INSTRUCTIONS_FILE).read_text(encoding="utf-8"))
    print(f"written: {results / INSTRUCTIONS_FILE}, and {BEST_FILE} beside it for autosam_predict")
