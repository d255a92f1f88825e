"""The whole line on one data set, step by step: what `make demo` runs.

Every step is one console script, printed as it can be typed by hand. What exists is used again: a second run does
nothing but evaluate.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from autosam_net.commands.cli import new_parser, run
from autosam_net.data.dataset import DatasetSpec, list_datasets, read_dataset
from autosam_net.errors import AutosamError, UsageError
from autosam_net.paths import Folders, find_folders

PHANTOM_EPOCHS = "4"  # a fifth of the planned ones: the phantom is easy, and five folds shall not take long


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser("Run the whole line on a phantom data set, or on your own with --data.", root=False)
    parser.add_argument("--root", type=Path, default=Path("demo"), help="folder in which everything lies (demo)")
    parser.add_argument(
        "--data", type=Path, help="a task folder of the Medical Segmentation Decathlon, or DatasetNNN_NAME"
    )
    parser.add_argument("--configuration", default="cnn", help="the head: cnn, vit or linear (cnn)")
    return run(_demo, parser, argv)


def _demo(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    root = arguments.root / (arguments.data.resolve().name if arguments.data else "Example")
    folders = find_folders(root)
    dataset = bring_data(arguments.data, root, folders)
    number, configuration = str(dataset.identifier), arguments.configuration
    _command("autosam_plan_and_preprocess", "-d", number, "--root", root)
    shorter = () if arguments.data else ("--epochs", PHANTOM_EPOCHS)
    words = (number, configuration, _folds(dataset, folders), *shorter, "--continue", "--root", root)
    _command("autosam_train", *words)
    evaluated = _predict_and_evaluate(dataset, configuration, root)
    print(f"\nFinished in {(time.monotonic() - start) / 60:.1f} minutes.")
    if not evaluated:
        print("This data set has no labelled test images: the figures are those of the folds' validation cases.")
    _print_validation(folders.results / dataset.name)
    for title, folder in (
        ("raw data", dataset.folder),
        ("plan and cases", folders.preprocessed / dataset.name),
        ("models", folders.results / dataset.name),
        ("predictions", root / "predictions"),
    ):
        if folder.exists():
            print(f"{title + ':':16}{folder}")


def bring_data(data: Path | None, root: Path, folders: Folders) -> DatasetSpec:
    """Return the raw data set below `root`: the phantom, a linked nnU-Net data set, or a converted Decathlon task.

    Raises:
        UsageError: `data` is neither of the two.
    """
    if not list_datasets(folders.raw):
        if data is None:
            _command("autosam_example", "--root", root)
        elif not (data / "dataset.json").is_file():
            raise UsageError(
                f"--data {data}: no dataset.json there. Give a Decathlon task folder or a DatasetNNN_NAME."
            )
        elif list_datasets(data.resolve().parent).count(data.resolve().name):
            folders.raw.mkdir(parents=True, exist_ok=True)
            os.symlink(data.resolve(), folders.raw / data.resolve().name, target_is_directory=True)
        else:
            _command("autosam_convert_msd", "-i", data, "--root", root)
    return read_dataset(folders.raw / list_datasets(folders.raw)[0])


def _folds(dataset: DatasetSpec, folders: Folders) -> str:
    """Return the range of all folds that planning has made, such as `0-4`."""
    splits = json.loads((folders.preprocessed / dataset.name / "splits_final.json").read_text(encoding="utf-8"))
    return f"0-{len(splits) - 1}" if len(splits) > 1 else "0"


def _predict_and_evaluate(dataset: DatasetSpec, configuration: str, root: Path) -> bool:
    """Predict imagesTs, if there is such a folder, and return whether labelsTs let the result be evaluated."""
    images, references = dataset.folder / "imagesTs", dataset.folder / "labelsTs"
    if not images.is_dir() or not any(images.iterdir()):
        return False
    output = root / "predictions" / configuration
    model = ("-d", str(dataset.identifier), "-c", configuration)
    _command("autosam_predict", "-i", images, "-o", output, *model, "--continue_prediction", "--root", root)
    if not references.is_dir():
        return False
    _command("autosam_evaluate", "-r", references, "-p", output, "--labels", dataset.folder / "dataset.json")
    return True


def _print_validation(results: Path) -> None:
    for path in sorted(results.rglob("summary.json")):
        dice = json.loads(path.read_text(encoding="utf-8"))["foreground_mean"]["Dice"]
        print(f"validation Dice {'-' if dice is None else format(dice, '.3f')}   {path.parent}")


def _command(name: str, *words: str | Path) -> None:
    """Print a console script's command line and run it.

    Raises:
        AutosamError: the script is not installed beside this Python, or it ended with an error, which it has printed.
    """
    line = [str(word) for word in words]
    print(f"\n$ {shlex.join([name, *line])}", flush=True)
    script = shutil.which(name, path=str(Path(sys.executable).parent))
    if script is None:
        raise AutosamError(f"{name} is not installed beside {sys.executable}. Run pip install -e . with it.")
    if code := subprocess.run([script, *line], check=False).returncode:
        raise AutosamError(f"{name} ended with exit code {code}; its message stands above")


if __name__ == "__main__":
    sys.exit(main())
