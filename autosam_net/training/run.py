"""Folders of trained models.

results/Dataset027_ACDC/vit/                   a model: one configuration, trained in one way
    plan.json                                  the plan it was trained by
    expected_dice.json  MODEL_CARD.md          what its validation cases taught, and the model in words
    fold_0/  checkpoint.safetensors            the state to go on from
             model.safetensors                 the trained head, when training has finished
             run.json  training_log.csv  progress.png  validation/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autosam_net.data.configuration import Tuning, parse_prompts, parse_tuning
from autosam_net.data.plan import Plan, load_plan
from autosam_net.data.prompts import PromptKind
from autosam_net.errors import ModelError, PlanError, UsageError
from autosam_net.evaluation.expected_dice import EXPECTED_DICE_FILE
from autosam_net.files import remove_folder, remove_leftovers
from autosam_net.jsonio import read_sealed, write_json_if_changed
from autosam_net.paths import Folders


@dataclass(frozen=True)
class TrainingOptions:
    """What the user may decide for one training.

    Attributes:
        labelled: number of patients to train on, drawn with `seed`; all of the fold's if None.
        unlabelled: learn from the fold's other patients and from the scans in imagesUn as well, without labels.
        seed: of the initial weights, the batches and the draw of patients.
        epochs: replaces the planned number.
        fresh_views: augment and encode each batch anew instead of taking views from the cache.
        max_minutes: of encoding and training together; in half of it as many views of each slice as can be had are
            encoded, and training is shortened to fit.
        device: "cpu", "cuda", "cuda:1" ...
        resume: keep a finished training of other settings, instead of refusing.
        overwrite: throw an earlier training away.
        tune: of `STRATEGIES`, what learns and how; other than `head` in place of the configuration's own tuning.
        from_head: begin with the head of the same training without tuning.
        pretrained: name of a part of a head that `autosam_pretrain` made, to begin with.
        last_blocks: with an encoder that learns by updates or adapters, the number of its last attention blocks that
            do; what lies below is cached.
        anyway: tune the encoder of a trained head without a trial whether it helps.
        trial: leave some of the labelled patients out, and validate on them instead of the fold's validation part.
        prompts: of `PROMPT_KINDS`, in place of the configuration's own kind of prompt.
    """

    labelled: int | None = None
    unlabelled: bool = False
    seed: int = 0
    epochs: int | None = None
    fresh_views: bool = False
    max_minutes: float | None = None
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    tune: str = "head"
    from_head: bool = False
    pretrained: str | None = None
    last_blocks: int | None = None
    anyway: bool = False
    trial: bool = False
    prompts: str | None = None

    @property
    def prompt_kind(self) -> PromptKind | None:
        """Return the kind of prompt that is asked for, None for the configuration's own."""
        return parse_prompts(self.prompts)

    @property
    def tuning(self) -> Tuning | None:
        """Return what `tune` and `last_blocks` stand for, None for the head alone.

        Raises:
            UsageError: there is no such strategy, or it tunes no blocks.
        """
        tuning = parse_tuning(self.tune)
        if self.last_blocks is None:
            return tuning
        if tuning is None or not tuning.in_blocks:
            raise UsageError("--last-blocks: goes with --tune encoder+head:lora or encoder+head:adapter.")
        return replace(tuning, blocks=tuple(range(-self.last_blocks, 0)), cached=True)

    @property
    def untuned(self) -> TrainingOptions:
        """Return the options of the same training of the head alone."""
        return replace(self, tune="head", last_blocks=None, from_head=False)

    def run_name(self, configuration: str) -> str:
        """Return the folder's name: `vit`, `vit_seed1`, `vit_labelled1_seed0`, each perhaps with `_unlabelled`.

        Tuned runs are `vit_head-lora` or `vit_encoder-lora`, perhaps with `_last2` and `_from-head`, before all that;
        runs with another kind of prompt than the configuration's `prompted_point`; a U-Net that begins with a
        pretrained part `unet_from-unet_027_fold0`.
        """
        if self.prompt_kind is not None:
            configuration += f"_{self.prompts}"
        if (tuning := self.tuning) is not None:
            part = tuning.part.partition("+")[0]
            configuration += f"_{part}-{tuning.method}" + (
                "" if self.last_blocks is None else f"_last{self.last_blocks}"
            )
            configuration += "_from-head" if self.from_head else ""
        if self.pretrained is not None:
            configuration += f"_from-{self.pretrained}"
        labelled = "" if self.labelled is None else f"_labelled{self.labelled}"
        seed = f"_seed{self.seed}" if labelled or self.seed else ""
        return configuration + labelled + seed + ("_unlabelled" if self.unlabelled else "")


@dataclass(frozen=True)
class ModelFolder:
    """A folder with the folds of one trained configuration."""

    path: Path

    @property
    def name(self) -> str:
        """Return `Dataset027_ACDC/vit`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def plan_file(self) -> Path:
        """Return the plan that the folds were trained by."""
        return self.path / "plan.json"

    def fold(self, fold: str) -> Path:
        """Return the folder of a fold."""
        return self.path / f"fold_{fold}"

    def trained_folds(self) -> list[str]:
        """Return the folds whose training has finished, sorted."""
        return sorted(file.parent.name.removeprefix("fold_") for file in self.path.glob("fold_*/model.safetensors"))

    def check_plan(self, plan: Plan, replaced: str | None = None) -> None:
        """Refuse a plan that does not fit the trained folds, `replaced` left out, since all folds predict together.

        Raises:
            ModelError: it does not fit.
        """
        kept = [fold for fold in self.trained_folds() if fold != replaced]
        if kept and not fit_together(load_plan(self.plan_file), plan):
            raise ModelError(
                f"{self.path}: fold {', '.join(kept)} was trained by another plan. Move this folder away, or go back "
                "to that plan, plan.json in it."
            )


def fit_together(first: Plan, second: Plan) -> bool:
    """Return whether heads trained by these plans take the same inputs and give the same outputs."""
    one, other = (
        (plan.preprocessing, plan.encoding, plan.prompts, list(plan.labels.items()), plan.regions_class_order)
        for plan in (first, second)
    )
    return one == other


def list_models(folders: Folders) -> Iterator[ModelFolder]:
    """Yield every model with at least one finished fold, sorted by path."""
    for plan in sorted(folders.results.glob("Dataset*/*/plan.json")):
        model = ModelFolder(plan.parent)
        if model.trained_folds():
            yield model


def prepare_fold(model: ModelFolder, fold: str, plan: Plan, options: TrainingOptions, training: str) -> Path:
    """Return the fold's folder, ready for a training that begins or goes on.

    Args:
        training: digest of all that the result depends on; the same training, asked for again, goes on or is done.

    Raises:
        ModelError: the plan does not fit the model's other folds.
        PlanError: another training was finished before and neither resume nor overwrite was asked for.
    """
    folder = model.fold(fold)
    trained = (folder / "model.safetensors").exists()
    if trained and not (options.resume or options.overwrite or _training_of(folder) == training):
        raise PlanError(
            f"{folder}: this fold was trained before. Give --continue to keep it, or --overwrite to begin anew."
        )
    model.check_plan(plan, replaced=fold if options.overwrite else None)
    if options.overwrite and folder.exists():
        (model.path / EXPECTED_DICE_FILE).unlink(missing_ok=True)  # learnt from this fold too
        remove_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for place in (model.path, folder, folder / "validation"):
        remove_leftovers(place)
    if not (folder / "model.safetensors").exists():
        write_json_if_changed(model.plan_file, plan)  # what is older than a plan was predicted by another
    return folder


def _training_of(folder: Path) -> str | None:
    """Return the digest of the training whose head lies in a fold's folder; None where nothing says so."""
    try:
        run = read_sealed(folder / "run.json")
    except PlanError:
        return None
    return run.get("training") if isinstance(run, dict) else None
