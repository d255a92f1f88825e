"""A trained model: all folds of one or several heads on one encoder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.dataset import CaseFiles
from autosam_net.data.plan import Plan
from autosam_net.data.prompts import Prompt, read_prompts
from autosam_net.data.volume import Volume
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import ModelError, PlanError, UsageError
from autosam_net.evaluation.case_table import CASES_FILE, GrowingTable, Rows, confidence_rows, read_rows
from autosam_net.evaluation.expected_dice import Confidences, Dice, ExpectedDice, expect
from autosam_net.files import remove_leftovers
from autosam_net.imageio import READERS, read_case, split_ending
from autosam_net.inference.export import export_case, refuse_without_series, save_segmentations
from autosam_net.inference.inputs import find_inputs
from autosam_net.inference.predict import probabilities_of_each
from autosam_net.inference.uncertainty import MAPS_FOLDER, map_names, mean_confidences, watch_members
from autosam_net.jsonio import write_json
from autosam_net.memory import ENCODING_MIB, demand_memory, prediction_mib
from autosam_net.parallel import WHOLE, Part, each_case
from autosam_net.preprocessing.preprocess import preprocess_case
from autosam_net.preprocessing.prompts import prompts_on_preprocessed_grid
from autosam_net.registry import suggest

log = logging.getLogger(__name__)


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
