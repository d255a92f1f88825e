"""`autosam_install_model model.zip`: put an exported model into the results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import folders_of, load_libraries, new_parser, run


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_install_model --help`."""
    parser = new_parser(
        "Verify a zip of autosam_export_model and put its models into the results folder, from where autosam_predict "
        "takes them. Nothing that is there already is changed."
    )
    parser.add_argument("zip", type=Path, help="file written by autosam_export_model")
    weights = "the encoder's weights, where they are not the published ones"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    return run(_install, parser, argv)


def _install(arguments: argparse.Namespace) -> None:
    load_libraries()
    from autosam_net.inference.best import BEST_FILE
    from autosam_net.inference.package import install_model
    from autosam_net.paths import root_flag

    folders = folders_of(arguments)
    models = install_model(arguments.zip, arguments.weights, folders)
    for model in models:
        print(f"{model.path}: folds {', '.join(model.trained_folds())}")
    folder = models[0].path.parent
    chosen = "" if (folder / BEST_FILE).is_file() else " -c " + " ".join(model.path.name for model in models)
    root = root_flag(folders)
    print(f"to predict with it: autosam_predict -d {folder.name}{chosen} -i INPUT -o OUTPUT{root}")
