"""MODEL_CARD.md beside a trained model: what it was trained on, how good it is, and what it is not for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autosam_net.data.dataset import DatasetSpec, texts_in
from autosam_net.data.plan import Plan, load_plan
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.evaluation.expected_dice import read_expected_dice
from autosam_net.evaluation.selection import class_means
from autosam_net.files import atomic_file
from autosam_net.jsonio import read_json, read_sealed
from autosam_net.paths import Folders
from autosam_net.training.cases import patients_of
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.run import ModelFolder

CARD_FILE = "MODEL_CARD.md"
TEMPLATE = "model_card.md.j2"


@dataclass(frozen=True)
class FoldFacts:
    """A row of the table of trainings; counts of cases and of patients."""

    name: str
    train: int
    train_patients: int
    unlabelled: int
    held_out: int
    held_out_patients: int
    seed: int
    iterations: int
    minutes: float


@dataclass(frozen=True)
class ClassFigures:
    """A row of the table of validation figures, as text."""

    name: str
    dice: str
    lowest: str
    hd95: str
    cases: int


def write_model_card(model: ModelFolder, dataset: DatasetSpec, folders: Folders) -> Path:
    """Write the card from the files of the model and of its data set; return its path."""
    path = model.path / CARD_FILE
    with atomic_file(path) as temporary:
        temporary.write_text(_render(_facts(model, dataset, folders)), encoding="utf-8")
    return path


def _render(facts: Mapping[str, Any]) -> str:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(facts)


def _facts(model: ModelFolder, dataset: DatasetSpec, folders: Folders) -> dict[str, Any]:
    plan = load_plan(model.plan_file)
    patients = patients_of(dataset, folders)
    trained = model.trained_folds()
    runs = {fold: read_sealed(model.fold(fold) / "run.json") for fold in trained}
    summaries = [
        read_sealed(file) for fold in trained if (file := model.fold(fold) / "validation" / "summary.json").is_file()
    ]
    _, metadata = load_tensors(model.fold(trained[0]) / "model.safetensors")
    held_out = [case for run in runs.values() for case in run["held_out"]]
    return {
        "name": model.name,
        "plan": plan,
        "head": metadata["head"],
        "tuning": metadata.get("tuning"),
        "classes": list(plan.label_set.targets),
        "channels": plan.channel_names,
        "description": texts_in(read_json(dataset.folder / "dataset.json")),
        "folds": [_fold_facts(fold, run, patients) for fold, run in runs.items()],
        "labelled": runs[trained[0]]["options"]["labelled"],
        "encoder": _encoder_facts(plan, metadata["encoder_sha256"]),
        "figures": _figures(summaries),
        "unit": summaries[0]["unit"] if summaries else "mm",
        "cases": sum(summary["number_of_cases"] for summary in summaries),
        "patients": _count_patients(held_out, patients),
        "expected": read_expected_dice(model.path),
        "versions": runs[trained[-1]]["versions"],
    }


def _encoder_facts(plan: Plan, sha256: str) -> dict[str, str]:
    entry = ENCODERS.get(plan.encoding.encoder)
    source = entry.weights
    published = source is not None and source.sha256 == sha256
    unknown = "not known: weights of one's own" if source is not None else "none needed"
    licence = source.licence if source is not None and published else None
    return {"name": entry.name, "description": entry.description, "sha256": sha256, "licence": licence or unknown}


def _fold_facts(fold: str, run: Mapping[str, Any], patients: Mapping[str, str]) -> FoldFacts:
    return FoldFacts(
        name=fold,
        train=len(run["trained_on"]),
        train_patients=_count_patients(run["trained_on"], patients),
        unlabelled=len(run.get("unlabelled", ())),  # models of the first days have none
        held_out=len(run["held_out"]),
        held_out_patients=_count_patients(run["held_out"], patients),
        seed=run["options"]["seed"],
        iterations=run["iterations"],
        minutes=(run["seconds"]["encoding"] + run["seconds"]["training"]) / 60,
    )


def _count_patients(cases: Iterable[str], patients: Mapping[str, str]) -> int:
    return len({patients.get(case, case) for case in cases})


def _figures(summaries: Sequence[Mapping[str, Any]]) -> list[ClassFigures]:
    """Return a row a class over the cases of all folds, and one of the mean over classes."""
    if not summaries:
        return []
    names = summaries[0]["label_names"]
    cases = [case["metrics"] for summary in summaries for case in summary["metric_per_case"]]
    dice, hd95 = (
        np.array([[case[key][metric] for key in names] for case in cases], float) for metric in ("Dice", "HD95")
    )  # (cases, classes), NaN where undefined
    rows = [_class_figures(name, dice[:, index], hd95[:, index]) for index, name in enumerate(names.values())]
    return [*rows, _class_figures("mean of classes", class_means(dice.T), class_means(hd95.T))]


def _class_figures(name: str, dice: np.ndarray, hd95: np.ndarray) -> ClassFigures:
    known = dice[~np.isnan(dice)]
    lowest = f"{known.min():.3f}" if known.size else "-"
    return ClassFigures(name, _spread(dice, 3), lowest, _spread(hd95, 1), known.size)


def _spread(values: np.ndarray, digits: int) -> str:
    known = values[~np.isnan(values)]
    return f"{known.mean():.{digits}f} ± {known.std(ddof=known.size > 1):.{digits}f}" if known.size else "-"
