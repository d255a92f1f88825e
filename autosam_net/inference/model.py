"""A trained model: all folds of one or several heads on one encoder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import CaseFiles, dataset_folder_name
from autosam_net.data.plan import Plan, Tuning
from autosam_net.data.prompts import Prompt, read_prompts
from autosam_net.data.volume import Volume
from autosam_net.embedding.embed import EncoderSource
from autosam_net.encoders.tuning import ENCODER, HEAD, learnt, load_learnt, settle_encoder, tune_head
from autosam_net.encoders.weights import weights_sha256
from autosam_net.errors import ModelError, PlanError, UsageError, WeightsError
from autosam_net.evaluation.case_table import CASES_FILE, GrowingTable, Rows, confidence_rows, read_rows
from autosam_net.evaluation.expected_dice import Confidences, Dice, ExpectedDice, expect, read_expected_dice
from autosam_net.files import remove_leftovers, sha256_of_files
from autosam_net.heads.head import build_head, takes_prompts
from autosam_net.imageio import READERS, read_case, split_ending
from autosam_net.inference.best import BEST_FILE, Best, read_best
from autosam_net.inference.export import export_case, refuse_without_series, save_segmentations
from autosam_net.inference.inputs import find_inputs
from autosam_net.inference.predict import probabilities_of_each
from autosam_net.inference.uncertainty import MAPS_FOLDER, map_names, mean_confidences, watch_members
from autosam_net.jsonio import from_json, read_sealed, to_json, write_json
from autosam_net.memory import ENCODING_MIB, demand_memory, prediction_mib
from autosam_net.parallel import WHOLE, Part, each_case
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import preprocess_case
from autosam_net.preprocessing.prompts import prompts_on_preprocessed_grid
from autosam_net.registry import suggest
from autosam_net.training.build import base_encoder, build_model, head_shape
from autosam_net.training.check_plan import check_tuning, load_checked_plan
from autosam_net.training.checkpoint import load_tensors, tensors_sha256
from autosam_net.training.run import ModelFolder, fit_together, list_models
from autosam_net.training.train import MODEL_VERSION, trained_by

log = logging.getLogger(__name__)
HEAD_METADATA: dict[str, Any] = {
    "head": str,
    "settings": dict[str, float],
    "encoder": str,
    "encoder_sha256": str,
    "tuning": Tuning | None,
}


@dataclass(frozen=True)
class PredictionFiles:
    """The files of one predicted case; what is None or missing was not asked for.

    Attributes:
        maps: "entropy" or "disagreement" -> image of that uncertainty.
        prompts: that the case comes with.
    """

    label: Path
    probabilities: Path | None
    maps: Mapping[str, Path]
    prompts: Sequence[Prompt] | None = None

    def exist(self) -> bool:
        """Return whether all of them are there."""
        asked = (self.label, self.probabilities, *self.maps.values())
        return all(file is None or file.exists() for file in asked)


@dataclass(frozen=True)
class Model:
    """Heads that share an encoder, and the plan that they were trained by.

        model = load_model(27, ["cnn"])
        labels = segment(array, model, spacing=(10.0, 1.5, 1.5)).labels

    Attributes:
        heads: of all folds and configurations; their probabilities are averaged. Where `plan.encoding.tuned`, each
            brings the encoder that was tuned with it.
        poses: that are averaged with the plain one, for test-time augmentation, from the plan.
        largest_only: groups of label values of which only the largest connected component is kept.
        expected_dice: what each head's model learnt from its validation cases, None where it learnt nothing.
        origins: run and fold of each head -> sha256 of its file.
    """

    plan: Plan
    heads: tuple[nn.Module, ...]
    source: EncoderSource
    poses: tuple[str, ...] = ()
    largest_only: tuple[tuple[int, ...], ...] = ()
    expected_dice: tuple[ExpectedDice | None, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def without_augmentation(self) -> Model:
        """Return the same model without test-time augmentation."""
        return replace(self, poses=())

    def without_postprocessing(self) -> Model:
        """Return the same model with label maps left as they are predicted."""
        return replace(self, largest_only=())

    def predict_folder(
        self,
        inputs: Path | str | Sequence[Path | str],
        output: Path | str,
        save_probabilities: bool = False,
        skip_existing: bool = False,
        save_uncertainty: bool = False,
        save_dicom_seg: bool = False,
        part: Part = WHOLE,
        prompts: Path | str | None = None,
    ) -> list[Path]:
        """Predict every case of a folder, file or list of files; return the label maps written, one a case.

        Beside them `cases.csv` says of each case which Dice to expect, and flags bad ones.

        Args:
            inputs: a folder with a DICOM series is a case; see `find_inputs`.
            save_uncertainty: write images of the uncertainty into `uncertainty/` too.
            save_dicom_seg: write `CASE.dcm` too, a DICOM-SEG that refers to the case's series.
            part: the share of the cases that is predicted.
            prompts: a prompts.json, for a model that needs prompts.

        Raises:
            DatasetError: no inputs, or a case has not the channels that the model was trained on.
            ImageFileError: a file cannot be read.
            ModelError: the model needs prompts, and there are none, or the other way round.
            PlanError: a prompt cannot be meant.
            UsageError: a label map would overwrite an image, or a DICOM-SEG is asked for without a series.
        """
        paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
        cases = find_inputs([Path(path) for path in paths], len(self.plan.channel_names))
        given = self._prompts(None if prompts is None else Path(prompts), [case.name for case in cases])
        cases, folder = part.of(cases), Path(output)
        if save_dicom_seg:
            refuse_without_series(cases)
        maps = map_names(len(self.heads)) if save_uncertainty else ()
        outputs = [
            replace(self._outputs(case, folder, save_probabilities, maps), prompts=given.get(case.name))
            for case in cases
        ]
        label_maps = [files.label for files in outputs]
        _refuse_to_overwrite(cases, label_maps)
        for place in (folder, folder / MAPS_FOLDER):
            remove_leftovers(place)
        told = {case for case, _ in read_rows(folder / CASES_FILE)} if skip_existing else set()
        todo = [
            (case, files)
            for case, files in zip(cases, outputs, strict=True)
            if not (case.name in told and files.exist())
        ]
        if len(todo) < len(cases):
            log.info("%d of %d cases are predicted already", len(cases) - len(todo), len(cases))
        with GrowingTable(folder / CASES_FILE) as table:
            # one process, since the encoder takes all cores; a cluster takes the cases side by side
            for rows in each_case(self._predict_file, todo, "predict", 1, lambda entry: entry[0].name):
                table.add(rows)
        if save_dicom_seg:
            save_segmentations(cases, label_maps, self.plan.label_set, skip_existing)
        write_json(folder / "plan.json", self.plan)
        return label_maps

    def _outputs(self, case: CaseFiles, folder: Path, save_probabilities: bool, maps: Sequence[str]) -> PredictionFiles:
        image = case.images[0]
        ending = self.plan.file_ending if image.is_dir() else split_ending(image.name)[1]
        if READERS.get(ending).write is None:
            ending = self.plan.file_ending
        return PredictionFiles(
            label=folder / (case.name + ending),
            probabilities=folder / f"{case.name}_probabilities.npy" if save_probabilities else None,
            maps={name: folder / MAPS_FOLDER / f"{case.name}_{name}{ending}" for name in maps},
        )

    def _predict_file(self, job: tuple[CaseFiles, PredictionFiles]) -> Rows:
        """Write the files of a case; return its rows in the table of cases."""
        (files, outputs), begin = job, time.monotonic()
        image, labels = read_case(files.images), self.plan.label_set
        case = self.preprocess(files.name, image)
        log.debug("%s: %s", files.name, _in_words(image, case))
        prepared = time.monotonic()
        demand_memory(f"{files.name}: prediction", self._prediction_mib(case))
        watch = watch_members(labels, len(self.heads), case.properties, outputs.maps)
        slices = watch.recorded(self.members(case, outputs.prompts), outputs.maps)
        export_case(outputs.label, slices, case.properties, labels, outputs.probabilities, self.largest_only)
        members = watch.confidences()
        seconds = prepared - begin, time.monotonic() - prepared
        log.debug("%s: read and preprocessed in %.1f s, predicted and written in %.1f s", files.name, *seconds)
        return confidence_rows(case.properties.name, mean_confidences(members), *self.expect(members))

    def _prediction_mib(self, case: PreprocessedCase) -> float:
        properties, outputs = case.properties, self.plan.label_set.outputs * len(self.heads)
        plane = max(math.prod(shape[1:]) for shape in (properties.cropped_shape, properties.shape))
        measured = self.plan.estimates.get("encode")
        encoding = ENCODING_MIB if measured is None else measured.memory_mib or ENCODING_MIB
        return prediction_mib(
            math.prod(properties.raw_shape), len(case.image), case.image.size, plane * outputs, encoding
        )

    def preprocess(self, name: str, volume: Volume) -> PreprocessedCase:
        """Return an image as the plan wants it.

        Raises:
            DatasetError: it has not the channels that the model was trained on, or a voxel is not a finite number.
        """
        return preprocess_case(name, volume, None, self.plan.preprocessing)

    def members(
        self, case: PreprocessedCase, prompts: Sequence[Prompt] | None = None
    ) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Yield for every slice the probabilities of each head `(outputs, Y, X)` on the preprocessed grid.

        Args:
            prompts: in voxels of the raw image, for a model that needs them.

        Raises:
            ModelError: the model needs prompts, and there are none, or the other way round.
            PlanError: a prompt does not lie in the image.
        """
        self.check_prompts(prompts is not None)
        placed = None if prompts is None else prompts_on_preprocessed_grid(prompts, case.properties)
        labels, poses = self.plan.label_set, self.poses
        return probabilities_of_each(case, self.heads, labels, self.source, poses=poses, prompts=placed)

    def check_prompts(self, given: bool) -> None:
        """Refuse prompts where the model takes none, and to predict without them where it needs some.

        Raises:
            ModelError: says which.
        """
        if given and self.plan.prompts is None:
            raise ModelError(f"{self._name}: takes no prompts. Leave them out, or choose a model that needs them.")
        if not given and self.plan.prompts is not None:
            raise ModelError(f"{self._name}: needs prompts. Give them with --prompts prompts.json.")

    @property
    def _name(self) -> str:
        return ", ".join(self.origins) or "the model"

    def _prompts(self, file: Path | None, cases: Sequence[str]) -> dict[str, list[Prompt]]:
        """Return case -> prompts in voxels of the raw image; nothing where there is no file."""
        self.check_prompts(file is not None)
        if file is None or self.plan.prompts is None:
            return {}
        prompts = read_prompts(file, self.plan.label_set.targets)
        for name in prompts:
            if name not in cases:
                raise PlanError(f"{file}: no case {name!r} among the inputs; {suggest(name, cases)}")
        if lacking := [name for name in cases if name not in prompts]:
            raise PlanError(f"{file}: no prompt for {lacking[0]} ({len(lacking)} of {len(cases)} cases). Add them.")
        used = {kind for entries in prompts.values() for prompt in entries for kind in prompt.kinds}
        if unknown := sorted(used - set(self.plan.prompts.kinds)):
            log.warning("%s: %s prompts, of which %s knows nothing", file, " and ".join(unknown), self._name)
        return prompts

    def expect(self, confidences: Sequence[Confidences]) -> tuple[Dice, bool | None]:
        """Return class -> expected Dice by the heads' confidences, and whether the prediction counts as bad."""
        return expect(list(zip(self.expected_dice or [None] * len(confidences), confidences, strict=True)))


def _in_words(image: Volume, case: PreprocessedCase) -> str:
    """Return an image's shape and spacing, and what became of them."""
    spacing = " x ".join(f"{step:g}" for step in image.geometry.spacing)
    shapes = " -> ".join(" x ".join(map(str, shape)) for shape in (image.shape, case.properties.shape))
    return f"{len(image.array)} channel/s, voxels of {spacing} mm, {shapes} voxels"


def _refuse_to_overwrite(cases: Sequence[CaseFiles], targets: Sequence[Path]) -> None:
    images = {image.resolve() for case in cases for image in case.images}
    for target in targets:
        if target.parent.resolve() in images:
            raise UsageError(f"{target}: would lie among the slices of a series. Choose another folder for output.")
        if target.resolve() in images:
            raise UsageError(f"{target}: the label map would overwrite the image. Choose another folder for output.")


def load_chosen_models(
    models: Sequence[ModelFolder], names: Sequence[str] | None, folds: Sequence[str] | None, device: str, where: str
) -> Model:
    """Return the model of those called `names` among a data set's; if None, of the best, or else of the only one.

    Raises:
        ModelError: as `select_models` and `load_model_folders` do.
    """
    selection = select_models(models, names, folds, where)
    model = load_model_folders(selection.models, selection.folds, device)
    if (best := selection.best) is None:
        return model
    log.info("%s: %s", BEST_FILE, best.description)
    return replace(model, largest_only=model.plan.largest_only(best.choice.keep_largest))


@dataclass(frozen=True)
class Selection:
    """Models and folds (all trained ones if None) that predict together; `best`, where its choice decided that."""

    models: list[ModelFolder]
    folds: Sequence[str] | None
    best: Best | None = None


def select_models(
    models: Sequence[ModelFolder], names: Sequence[str] | None, folds: Sequence[str] | None, where: str
) -> Selection:
    """Return those called `names` among a data set's models; if None, the best ones, or else the only one.

    Raises:
        ModelError: as `choose_models` and `read_best` do.
    """
    best = read_best(models[0].path.parent) if models and names is None else None
    if best is None:
        return Selection(choose_models(models, names, where), folds)
    return Selection(choose_models(models, best.choice.configurations, where), folds or best.folds, best)


def models_of(dataset: int | str, folders: Folders) -> list[ModelFolder]:
    """Return the models of a data set with at least one finished fold.

    Raises:
        DatasetError: there is no folder of such a data set.
        ModelError: there is one, without a finished fold.
    """
    cure = "Run autosam_train first, or point --root or autosam_results to the folder that holds the models."
    name = dataset_folder_name(dataset, folders.results, cure)
    models = [model for model in list_models(folders) if model.path.parent.name == name]
    if not models:
        raise ModelError(f"{folders.results / name}: no fold has been trained to its end. {cure}")
    return models


def choose_models(models: Sequence[ModelFolder], names: Sequence[str] | None, where: str) -> list[ModelFolder]:
    """Return the models called `names`, or the only one.

    Raises:
        ModelError: there is none, or no names are given and there are several.
    """
    if not models:
        raise ModelError(f"{where}: no trained model. Run autosam_train first.")
    by_name = {model.path.name: model for model in models}
    if names is None:
        if len(models) > 1:
            listed = ", ".join(model.name for model in models)
            raise ModelError(
                f"{where}: several models are trained: {listed}. Choose with -d and -c, or with -m FOLDER."
            )
        return list(models)
    for name in names:
        if name not in by_name:
            raise ModelError(f"{where}: no trained model {name!r}; {suggest(name, by_name)}")
    return [by_name[name] for name in names]


def load_model_folders(models: Sequence[ModelFolder], folds: Sequence[str] | None, device: str) -> Model:
    """Return one model of all folds of the given model folders.

    Raises:
        ModelError: they do not share preprocessing, encoder, labels and keep_largest, or a file is damaged.
        UsageError: a fold is not trained.
        WeightsError: the encoder's weights are missing or damaged.
    """
    plans = [load_checked_plan(model.plan_file) for model in models]
    for model, plan in zip(models, plans, strict=True):
        if plan.encoding.encoder != plans[0].encoding.encoder:
            raise ModelError(
                f"{model.name} works on the encoder {plan.encoding.encoder}, {models[0].name} on "
                f"{plans[0].encoding.encoder}; an ensemble has one encoder. Predict with each alone."
            )
        if plan.encoding.tuned != plans[0].encoding.tuned:
            raise ModelError(
                f"only one of {model.name} and {models[0].name} has tuned the encoder; predict with each alone."
            )
        if (plan.prompts is None) != (plans[0].prompts is None):
            raise ModelError(f"only one of {model.name} and {models[0].name} needs prompts; predict with each alone.")
        if not fit_together(plan, plans[0]):
            raise ModelError(
                f"{model.name} and {models[0].name} were trained by different plans; predict with each alone."
            )
        weights = plan.encoding.weights_file
        if weights is not None and not weights.is_file():
            raise WeightsError(
                f"{model.plan_file}: encoding: weights: {weights} does not exist here. Put the weights of "
                f"{plan.encoding.encoder} that the model was trained with there, or correct the path in this plan.json."
            )
    check_components(models, plans)
    source = EncoderSource(plans[0].encoding, device)
    files = [file for model in models for file in _fold_files(model, folds)]
    heads = tuple(load_head(file, plans[0], source) for file in files)
    log.info("%d %s of %s", len(heads), "head" if len(heads) == 1 else "heads", ", ".join(m.name for m in models))
    if plans[0].encoding.tuned and len(heads) > 1:
        own = "an encoder" if plans[0].encoding.tuned_from is None else "the encoder's upper part"
        log.info("each has tuned %s of its own: %d encoder passes where a frozen one takes one", own, len(heads))
    learnt = {model.path: read_expected_dice(model.path) for model in models}
    expected = tuple(learnt[file.parent.parent] for file in files)
    origins = {f"{file.parent.parent.name} {file.parent.name}": sha256_of_files([file]) for file in files}
    return Model(plans[0], heads, source, plans[0].encoding.poses, plans[0].largest_only(), expected, origins)


def check_components(models: Sequence[ModelFolder], plans: Sequence[Plan]) -> None:
    """Refuse models whose plans keep the largest component of different classes.

    Raises:
        ModelError: two of them do.
    """
    for model, plan in zip(models, plans, strict=True):
        if plan.largest_only() != plans[0].largest_only():
            raise ModelError(
                f"{model.name} keeps the largest component of {', '.join(plan.keep_largest) or 'no class'}, "
                f"{models[0].name} of {', '.join(plans[0].keep_largest) or 'no class'}. Write the same keep_largest in "
                "their plan.json."
            )


def choose_folds(model: ModelFolder, folds: Sequence[str] | None) -> list[str]:
    """Return `folds`, or all trained folds if None.

    Raises:
        UsageError: one is not trained.
    """
    trained = model.trained_folds()
    for fold in folds or ():
        if fold not in trained:
            raise UsageError(f"{model.name}: fold {fold} is not trained; trained folds: {', '.join(trained)}")
    return list(folds or trained)


def load_head(file: Path, plan: Plan, source: EncoderSource) -> nn.Module:
    """Return a trained head in evaluation mode, with the encoder that was tuned with it, if one was.

    Raises:
        ModelError: the file is damaged, or was trained by another plan or on an encoder with other weights.
    """
    tensors, metadata = read_head(file, plan)
    name, settings, tuning = metadata["head"], metadata["settings"], read_tuning(metadata)
    if (tuning is not None and tuning.of_encoder) != plan.encoding.tuned:
        raise ModelError(
            f"{file}: its plan.json says otherwise whether it has tuned the encoder. Put back the right one."
        )
    if takes_prompts(name) != (plan.prompts is not None):
        raise ModelError(f"{file}: its plan.json says otherwise whether it needs prompts. Put back the right one.")
    check_tuning(tuning, name, f"{file}: tuning")
    encoder = base_encoder(plan, source)
    try:
        _check_shapes(tensors, name, settings, tuning, plan, encoder.mask_decoder_weights)
        model = build_model(plan, name, settings, tuning, encoder)
        load_learnt(model, tensors)
    except RuntimeError as error:
        raise ModelError(f"{file}: not the weights of a {name} head; train this fold again") from error
    if plan.encoding.tuned:
        settle_encoder(encoder, source.precision)
    return model.eval()


def read_tuning(metadata: Mapping[str, Any]) -> Tuning | None:
    """Return how a trained head's pretrained parts were tuned, None for a whole head over a frozen encoder."""
    tuning: Tuning | None = from_json(HEAD_METADATA["tuning"], metadata.get("tuning"), "tuning")
    return tuning


def _check_shapes(
    tensors: Mapping[str, torch.Tensor],
    name: str,
    settings: Mapping[str, float],
    tuning: Tuning | None,
    plan: Plan,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Compare a head's tensors with those it is to be built with, before these take memory: settings may be forged.

    Raises:
        RuntimeError: they differ.
    """
    with torch.device("meta"):
        without_memory = {name: tensor.to("meta") for name, tensor in weights.items()}
        planned = build_head(name, head_shape(plan), settings, without_memory)
        if tuning is not None:
            tune_head(planned, tuning)
    found = {name.removeprefix(HEAD): t.shape for name, t in tensors.items() if not name.startswith(ENCODER)}
    shapes = {name: tensor.shape for name, tensor in planned.state_dict().items()}
    if learnt(planned).keys() - found.keys() or not found.items() <= shapes.items():
        raise RuntimeError("other tensors than such a head has")


def read_head(file: Path, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a trained head; the encoder need not be there.

    Raises:
        ModelError: the file is damaged, or was trained by another plan or on an encoder with other weights.
    """
    tensors, metadata = load_tensors(file)
    _check_metadata(file, metadata, plan)
    run = file.with_name("run.json")
    recorded = read_sealed(run).get("head_sha256") if run.is_file() else None
    if recorded not in (None, tensors_sha256(tensors, metadata)):
        raise ModelError(
            f"{file}: not the head that {run.name} beside it tells of. Put back the right one, or train it."
        )
    return tensors, metadata


def _check_metadata(file: Path, metadata: Mapping[str, Any], plan: Plan) -> None:
    if (found := metadata.get("version")) != MODEL_VERSION:
        raise ModelError(f"{file}: model of version {found}, expected {MODEL_VERSION}. Train this fold again.")
    for key, kind in HEAD_METADATA.items():
        try:
            from_json(kind, metadata.get(key), f"{file}: {key}")
        except PlanError as error:
            raise ModelError(f"{error}. Train this fold again.") from error
    expected = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    if metadata["encoder_sha256"] != expected:
        raise ModelError(
            f"{file}: trained on {metadata['encoder']} with weights {metadata['encoder_sha256'][:12]}, "
            f"but the weights found are {expected[:12]}. Set the plan's encoding.weights to the right file."
        )
    for key, value in trained_by(plan).items():
        if metadata.get(key) != to_json(value):
            raise ModelError(
                f"{file}: trained by another plan: {key} was {metadata.get(key)}, is now {to_json(value)}. "
                "Put back the plan.json that training wrote, or train this fold again."
            )


def _fold_files(model: ModelFolder, folds: Sequence[str] | None) -> list[Path]:
    return [model.fold(fold) / "model.safetensors" for fold in choose_folds(model, folds)]
