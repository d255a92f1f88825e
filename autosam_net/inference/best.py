"""The best configuration of a data set: what was chosen, how good it is, and whether it is still what was compared.

results/Dataset027_ACDC/
    best.json                     written by autosam_find_best_configuration, used by autosam_predict
    inference_instructions.txt    the same to read, and the commands to type
    ensembles/cnn+vit/fold_0/     what the pairs predict for the cases that the fold held out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autosam_net.data.plan import Plan, load_plan, settings_digest
from autosam_net.errors import ModelError, PlanError
from autosam_net.evaluation.selection import Choice, Figures, NestedEstimate
from autosam_net.files import sha256_of_files
from autosam_net.jsonio import load
from autosam_net.training.run import ModelFolder

BEST_FILE = "best.json"


@dataclass(frozen=True)
class Best:
    """What was chosen for a data set, and why.

    Attributes:
        folds: compared, and predicted with.
        cases: number of held-out cases, all folds together.
        candidates: configuration or pair -> Dice of the held-out cases as predicted.
        cross_validation: Dice of the choice, post-processing included, on the cases that it was made on.
        nested: Dice of such choices on cases that they were not made on; null where there is one patient only.
        missing_folds: compared configuration -> folds of the data set that it is not trained on.
        models: compared fold of a configuration (`cnn/fold_0`) -> sha256 of its model.safetensors.
        plans: compared configuration -> digest of the settings in its plan.json that change predictions.
        reasons: decision -> one sentence with the figures that led to it.
    """

    dataset: str
    choice: Choice
    folds: tuple[str, ...]
    cases: int
    candidates: Mapping[str, Figures]
    cross_validation: Figures
    nested: NestedEstimate | None
    missing_folds: Mapping[str, tuple[str, ...]]
    models: Mapping[str, str]
    plans: Mapping[str, str]
    reasons: Mapping[str, str]

    @property
    def description(self) -> str:
        """Return the choice in words."""
        largest = f", only the largest component of {', '.join(kept)}" if (kept := self.choice.keep_largest) else ""
        folds = f"fold{'s' * (len(self.folds) > 1)} {' '.join(self.folds)}"
        return f"{candidate_name(self.choice.configurations)}, {folds}{largest}"


def candidate_name(configurations: Sequence[str]) -> str:
    """Return `cnn`, or `cnn + vit` for a pair."""
    return " + ".join(configurations)


def model_checksums(models: Sequence[ModelFolder], folds: Sequence[str]) -> dict[str, str]:
    """Return `cnn/fold_0` -> sha256 of its weights, for every fold of every model."""
    files = [model.fold(fold) / "model.safetensors" for model in models for fold in folds]
    return {f"{file.parent.parent.name}/{file.parent.name}": sha256_of_files([file]) for file in files}


def plan_digest(plan: Plan) -> str:
    """Return the sha256 over what a plan says of predicting; where the encoder's weights lie is left out."""
    encoding = replace(plan.encoding, weights=None)
    return settings_digest(
        plan.preprocessing, encoding, [*plan.labels.items()], plan.regions_class_order, plan.keep_largest
    )


def read_best(folder: Path) -> Best | None:
    """Return what is in a data set's folder of results, or None where nothing was compared.

    Raises:
        ModelError: the file cannot be read, or a model was trained again, removed or given another plan since.
    """
    file = folder / BEST_FILE
    if not file.is_file():
        return None
    cure = f"Run autosam_find_best_configuration {int(folder.name[7:10])} again, or choose with -c."
    try:
        best = load(Best, file)
    except PlanError as error:
        raise ModelError(f"{error}. {cure}") from error
    if change := _change_since(best, folder):
        raise ModelError(f"{file}: out of date, {change} since. {cure}")
    return best


def _change_since(best: Best, folder: Path) -> str | None:
    """Return what happened to a compared model; one that was not chosen may be removed."""
    for name, checksum in best.models.items():
        file = folder / name / "model.safetensors"
        if file.is_file() and sha256_of_files([file]) != checksum:
            return f"{name} was trained again"
        if not file.is_file() and name.partition("/")[0] in best.choice.configurations:
            return f"{name} was removed"
    for name in best.choice.configurations:
        if plan_digest(load_plan(ModelFolder(folder / name).plan_file)) != best.plans[name]:
            return f"the plan of {name} was changed"
    return None
