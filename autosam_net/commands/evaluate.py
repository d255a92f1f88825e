"""autosam_evaluate: how well predictions agree with their references."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autosam_net.commands.cli import add_resources, new_parser, run
from autosam_net.errors import DatasetError, PlanError, UsageError
from autosam_net.jsonio import from_json, read_json

if TYPE_CHECKING:
    from autosam_net.data.labels import LabelSet

log = logging.getLogger(__name__)

LABEL_FILES = ("dataset.json", "plan.json")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_evaluate, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "Compare predicted label maps with their references, file by file: Dice, IoU, HD95, ASSD, normalised surface "
        "Dice, volumes, and in how many cases each class is there.",
        root=False,
    )
    parser.add_argument(
        "-r", "--references", type=Path, required=True, metavar="REF", help="folder of reference labels"
    )
    parser.add_argument("-p", "--predictions", type=Path, required=True, metavar="PRED", help="folder of predictions")
    output = "folder for summary.json and cases.csv (default PRED)"
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help=output)
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="JSON",
        help="dataset.json or plan.json that names the labels (default: that in PRED or beside REF)",
    )
    parser.add_argument(
        "--nsd-tolerance",
        type=_tolerance,
        metavar="MM",
        help="surface distance that counts as agreement, in mm, in pixels where the files state no spacing (default 2)",
    )
    parser.add_argument("--chill", action="store_true", help="leave out references that have no prediction")
    add_resources(parser, workers="by cores and cases")
    return parser


def _tolerance(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {text}")
    return value


def _evaluate(arguments: argparse.Namespace) -> None:
    from autosam_net.evaluation.metrics import NSD_TOLERANCE
    from autosam_net.evaluation.report import evaluate_pairs, pair_files, summary_table, write_summary

    for folder in (arguments.references, arguments.predictions):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    output = arguments.output or arguments.predictions
    tolerance = NSD_TOLERANCE if arguments.nsd_tolerance is None else arguments.nsd_tolerance
    description = arguments.labels or find_label_file(arguments.references, arguments.predictions)
    labels, ending = read_labels(description) if description else detect_labels(arguments.references)
    log.info("labels: %s (%s)", ", ".join(labels.targets), description or "the values present")
    pairs = pair_files(arguments.references, arguments.predictions, ending, arguments.chill)
    summary = evaluate_pairs(pairs, labels, arguments.workers, tolerance)
    write_summary(summary, output)
    print(summary_table(summary))
    print(f"written: {output / 'summary.json'} and {output / 'cases.csv'}")


def find_label_file(references: Path, predictions: Path) -> Path | None:
    """Return the dataset.json or plan.json that lies with the predictions, or beside the folder of references."""
    places = (predictions, references.resolve().parent)
    candidates = (place / name for place in places for name in LABEL_FILES)
    return next((path for path in candidates if path.is_file()), None)


def read_labels(path: Path) -> tuple[LabelSet, str]:
    """Return the labels and the file ending that a dataset.json or plan.json names (both have the same three keys).

    Raises:
        PlanError: the file is missing, is no JSON, or lacks one of the keys.
        DatasetError: the labels contradict each other.
    """
    from autosam_net.data.labels import LabelSet

    content: Any = read_json(path)
    for key in ("labels", "file_ending"):
        if not isinstance(content, dict) or key not in content:
            raise PlanError(f"{path}: key {key!r} is missing. Give a dataset.json of nnU-Net v2 or a plan.json.")
    values = from_json(dict[str, int | tuple[int, ...]], content["labels"], f"{path}: labels")
    order = from_json(tuple[int, ...] | None, content.get("regions_class_order"), f"{path}: regions_class_order")
    return LabelSet(values, order), from_json(str, content["file_ending"], f"{path}: file_ending")


def detect_labels(references: Path) -> tuple[LabelSet, str]:
    """Return one class a value that stands in the references, and the ending of the files.

    Raises:
        DatasetError: there is no label file, or the values are not 0, 1, 2, ...
    """
    import numpy as np

    from autosam_net.data.labels import LabelSet
    from autosam_net.imageio import READERS, read_label
    from autosam_net.parallel import progress

    names = sorted(path for path in references.iterdir() if not path.name.startswith("."))
    endings = [ending for file in names for ending in READERS if file.name.endswith(ending)]
    if not endings:
        raise DatasetError(f"{references}: no label files. Known endings: {', '.join(READERS)}")
    ending = max(endings, key=lambda entry: (endings.count(entry), len(entry)))
    chosen = [file for file in names if file.name.endswith(ending)]
    files = progress(chosen, "find labels", len(chosen), name=lambda file: file.name)
    values = sorted({int(value) for file in files for value in np.unique(read_label(file).array)} | {0})
    if values != list(range(len(values))) or len(values) < 2:
        raise DatasetError(f"{references}: the values {values[:20]} are not 0, 1, 2, ... Name them with --labels FILE.")
    return LabelSet({"background": 0, **{f"label {value}": value for value in values[1:]}}), ending
