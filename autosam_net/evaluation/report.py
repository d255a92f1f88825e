"""Many cases: what is evaluated, the means, the files summary.json and cases.csv, and the table on the screen."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Volume
from autosam_net.errors import DatasetError
from autosam_net.evaluation.case_table import CASES_FILE, METRICS, replace_columns
from autosam_net.evaluation.metrics import NSD_TOLERANCE, ClassMetrics, evaluate_case
from autosam_net.imageio import count_numbers, read_label
from autosam_net.imageio.reader import SPACING_TOLERANCE
from autosam_net.jsonio import sealed, write_json
from autosam_net.memory import demand_memory, evaluation_mib
from autosam_net.parallel import available_cores, map_cases

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

Pair = tuple[str, Path, Path]
"""Name of the case, file of the reference, file of the prediction."""

BYTES_PER_WORKER = 1_000_000
"""A worker process spends five seconds on its imports, the time to evaluate about this much of label files.

Compressed label maps are about as large as their surfaces, and those are what takes the time.
"""


@dataclass(frozen=True)
class CaseResult:
    """One case.

    Attributes:
        metrics: name of the class or region -> metrics.
        calibrated: whether the files state a spacing; if not, distances are in pixels.
    """

    name: str
    reference: Path
    prediction: Path
    metrics: Mapping[str, ClassMetrics]
    calibrated: bool


@dataclass(frozen=True)
class Presence:
    """In how many cases a class is there.

    Attributes:
        reference, prediction: cases in which the reference, the prediction has it.
        missed: only the reference has it.
        invented: only the prediction has it.
    """

    reference: int
    prediction: int
    missed: int
    invented: int


@dataclass(frozen=True)
class Summary:
    """All cases.

    Attributes:
        labels: name of the class or region -> its voxel values.
        tolerance: of the normalised surface Dice, in `unit`.
        unit: of distances: "mm", or "pixels" where no file states a spacing.
        foreground_mean: metric -> mean over the classes for which it is defined; None only if it is for none.
        mean: class -> metric -> mean over the cases for which it is defined.
        presence: class -> cases.
        prompts: those that the predictions were made with, in words; None where there were none.
    """

    labels: Mapping[str, tuple[int, ...]]
    tolerance: float
    unit: str
    foreground_mean: Mapping[str, float | None]
    mean: Mapping[str, Mapping[str, float | None]]
    presence: Mapping[str, Presence]
    cases: tuple[CaseResult, ...]
    prompts: str | None = None


def evaluate_folder(
    reference_folder: Path | str,
    prediction_folder: Path | str,
    labels: LabelSet,
    file_ending: str,
    workers: int | None = None,
    tolerance: float = NSD_TOLERANCE,
) -> Summary:
    """Return the evaluation of every file of `reference_folder` against its namesake in `prediction_folder`.

    Raises:
        DatasetError: see `pair_files` and `evaluate_pairs`.
    """
    pairs = pair_files(Path(reference_folder), Path(prediction_folder), file_ending)
    return evaluate_pairs(pairs, labels, workers, tolerance)


def pair_files(
    reference_folder: Path, prediction_folder: Path, file_ending: str, allow_missing: bool = False
) -> list[Pair]:
    """Return the pairs of files of the same name, sorted.

    Args:
        allow_missing: leave out, with a notice, references that have no prediction.

    Raises:
        DatasetError: a reference has no prediction, a prediction has no reference, or there are no files at all.
    """
    references = _files(reference_folder, file_ending)
    predictions = _files(prediction_folder, file_ending)
    if lacking := sorted(predictions.keys() - references.keys()):
        raise DatasetError(
            f"{reference_folder}: no reference for {_listed(lacking)}. Add it, or remove the prediction."
        )
    lacking = sorted(references.keys() - predictions.keys())
    if lacking and not allow_missing:
        raise DatasetError(
            f"{prediction_folder}: no prediction for {_listed(lacking)} ({len(lacking)} of {len(references)}). "
            "Predict them, or give --chill to evaluate only what is there."
        )
    if not predictions:
        raise DatasetError(f"{prediction_folder}: no file *{file_ending}. Give the folder that holds the predictions.")
    if lacking:
        log.warning("%d of %d references have no prediction and are left out", len(lacking), len(references))
    return [(name, references[name], predictions[name]) for name in sorted(predictions)]


def evaluate_pairs(
    pairs: Sequence[Pair], labels: LabelSet, workers: int | None = None, tolerance: float = NSD_TOLERANCE
) -> Summary:
    """Return the evaluation of pairs of label files.

    Args:
        workers: processes; by default up to one a core, as far as the files are large enough to pay for their start.

    Raises:
        AutosamError: a pair needs more memory than is allowed.
        DatasetError: shape or spacing of a pair differ, or a file has a value that `labels` does not name.
        ImageFileError: a file cannot be read.
    """
    workers = workers or workers_for([reference for _, reference, _ in pairs])
    function = partial(evaluate_files, labels=labels, tolerance=tolerance)
    memory = max((evaluation_mib(_voxels(pair)) for pair in pairs), default=0.0)
    return summarize(map_cases(function, pairs, "evaluate", workers, lambda pair: pair[0], memory), labels, tolerance)


def _voxels(pair: Pair) -> int:
    return max(count_numbers([file]) for file in pair[1:])


def workers_for(files: Sequence[Path]) -> int:
    """Return the number of processes that label files are worth; one that is missing is named on reading."""
    size = sum(file.stat().st_size for file in files if file.exists())
    return max(1, min(available_cores(), size // BYTES_PER_WORKER))


def evaluate_files(pair: Pair, labels: LabelSet, tolerance: float) -> CaseResult:
    """Return the metrics of one pair of label files; raises as `evaluate_pairs` does."""
    name, reference_file, prediction_file = pair
    demand_memory(f"{name}: evaluation", evaluation_mib(_voxels(pair)))
    reference, prediction = read_label(reference_file), read_label(prediction_file)
    check_pair(name, reference, prediction)
    for role, file, volume in (("reference", reference_file, reference), ("prediction", prediction_file, prediction)):
        _check_values(f"{name}: {role} {file}", volume.array, labels)
    metrics = evaluate_case(reference.array[0], prediction.array[0], reference.geometry.spacing, labels, tolerance)
    return CaseResult(name, reference_file, prediction_file, metrics, reference.geometry.calibrated)


def check_pair(name: str, reference: Volume, prediction: Volume) -> None:
    """Refuse two label maps of different grids.

    Raises:
        DatasetError: shape or spacing differ.
    """
    cure = "Evaluate predictions on the grid of their references."
    if reference.shape != prediction.shape:
        raise DatasetError(f"{name}: reference has shape {reference.shape}, prediction {prediction.shape}. {cure}")
    expected, found = reference.geometry.spacing, prediction.geometry.spacing
    if not np.allclose(expected, found, rtol=SPACING_TOLERANCE, atol=0):
        raise DatasetError(f"{name}: reference has spacing {expected} mm, prediction {found} mm. {cure}")


def _check_values(where: str, array: NDArray[np.generic], labels: LabelSet) -> None:
    found = np.unique(array).tolist()
    if unknown := sorted(set(found) - set(labels.allowed_values)):
        raise DatasetError(
            f"{where} has values {_listed(found)}; the labels name {_listed(labels.allowed_values)}. "
            f"Correct the file or name {_listed(unknown)} among the labels."
        )


def summarize(cases: Sequence[CaseResult], labels: LabelSet, tolerance: float) -> Summary:
    """Return the means over cases and classes.

    An undefined metric takes no part in a mean, so that a class that is nowhere does not pull the headline down, and
    one that was missed or invented does.
    """
    mean = {
        name: {metric: _mean(getattr(case.metrics[name], metric) for case in cases) for metric in METRICS}
        for name in labels.targets
    }
    return Summary(
        labels=labels.targets,
        tolerance=tolerance,
        unit="mm" if any(case.calibrated for case in cases) else "pixels",
        foreground_mean={metric: _mean(mean[name][metric] for name in mean) for metric in METRICS},
        mean=mean,
        presence={name: _presence([case.metrics[name] for case in cases]) for name in labels.targets},
        cases=tuple(cases),
    )


def _presence(metrics: Sequence[ClassMetrics]) -> Presence:
    return Presence(
        reference=sum(entry.n_ref > 0 for entry in metrics),
        prediction=sum(entry.n_pred > 0 for entry in metrics),
        missed=sum(entry.n_ref > 0 and entry.n_pred == 0 for entry in metrics),
        invented=sum(entry.n_ref == 0 and entry.n_pred > 0 for entry in metrics),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def write_summary(summary: Summary, folder: Path) -> None:
    """Write `summary.json` (nnU-Net's fields and more) and `cases.csv` (one row a case and class) into `folder`.

    What a prediction has written into `cases.csv` there, the Dice to expect, stays beside the metrics.
    """
    rows = {(case.name, name): dataclasses.asdict(one) for case in summary.cases for name, one in case.metrics.items()}
    replace_columns(folder / CASES_FILE, METRICS, rows)
    write_json(folder / "summary.json", sealed(_summary_json(summary, folder)))


def _summary_json(summary: Summary, folder: Path) -> dict[str, Any]:
    """Return the content of summary.json; classes go by their value as in nnU-Net, paths start at `folder`."""
    keys = {name: _label_key(values) for name, values in summary.labels.items()}
    return {
        "foreground_mean": summary.foreground_mean,
        "mean": {keys[name]: means for name, means in summary.mean.items()},
        "label_names": {key: name for name, key in keys.items()},
        "presence": {keys[name]: presence for name, presence in summary.presence.items()},
        "number_of_cases": len(summary.cases),
        "unit": summary.unit,
        "nsd_tolerance": summary.tolerance,
        **({} if summary.prompts is None else {"prompts": summary.prompts}),
        "metric_per_case": [
            {
                "reference_file": _relative(case.reference, folder),
                "prediction_file": _relative(case.prediction, folder),
                "metrics": {keys[name]: metrics for name, metrics in case.metrics.items()},
            }
            for case in summary.cases
        ],
    }


def _label_key(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(values)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def summary_table(summary: Summary) -> str:
    """Return the means and the presence as a table of text: one row a class, then the mean over all."""
    from rich.table import Table

    cases = len(summary.cases)
    prompts = "" if summary.prompts is None else f", {summary.prompts}"
    table = Table(title=f"{cases} case{'s' * (cases != 1)}, distances in {summary.unit}{prompts}")
    table.add_column("class", overflow="fold")
    shown = {"Dice": "Dice", "IoU": "IoU", "HD95": "HD95", "ASSD": "ASSD", "NSD": f"NSD {summary.tolerance:g}"}
    for heading in (*shown.values(), "present", "predicted", "missed", "invented"):
        table.add_column(heading, justify="right")
    for name, means in summary.mean.items():
        counts = dataclasses.astuple(summary.presence[name])
        table.add_row(name, *(_figure(means[metric], metric) for metric in shown), *map(str, counts))
    table.add_section()
    table.add_row("mean", *(_figure(summary.foreground_mean[metric], metric) for metric in shown))
    return as_text(table)


def as_text(table: Table) -> str:
    """Return a table of rich's as plain text of up to 110 columns."""
    from rich.console import Console

    console = Console(width=110, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table, highlight=False)
    return capture.get().rstrip()


def _figure(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if metric in ("HD95", "ASSD") else f"{value:.3f}"


def _files(folder: Path, file_ending: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    files = (path for path in folder.iterdir() if path.name.endswith(file_ending) and not path.name.startswith("."))
    return {path.name.removesuffix(file_ending): path for path in files}


def _listed(entries: Sequence[object]) -> str:
    """Return the entries separated by commas, at most ten of them."""
    more = f" and {len(entries) - 10} more" if len(entries) > 10 else ""
    return ", ".join(map(str, entries[:10])) + more
