"""The images that networks are pretrained on, without labels: which may be seen, and which never."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autosam_net.data.dataset import CaseFiles, DatasetSpec, group_by_case, unlabelled_scans
from autosam_net.data.plan import Plan
from autosam_net.data.splits import Split
from autosam_net.errors import UsageError
from autosam_net.files import sha256_of_files, sha256_of_text
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, preprocess_scans
from autosam_net.training.cases import patients_of, records_of, scans_to_learn_from

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """The cases that are learnt from.

    Attributes:
        patients: folder of a preprocessed case -> its patient.
        of_dataset: names of those that are the data set's.
    """

    patients: Mapping[Path, str]
    of_dataset: tuple[str, ...]


def find_material(
    dataset: DatasetSpec, plan: Plan, split: Split, unlabelled: Path | None, folders: Folders
) -> Material:
    """Return what is learnt from: the fold's training cases, and scans without labels; more scans are preprocessed.

    A scan is left out if the fold holds out its patient (by its name), or a case with the very same image.

    Raises:
        DatasetError: a scan has another number of channels than planned.
        ImageFileError: a scan cannot be read.
        PlanError: a held-out case is not preprocessed, so that nothing can be compared with it.
        UsageError: there is no scan in the folder, or they are the data set's test cases.
    """
    groups, root = patients_of(dataset, folders), cases_folder(dataset, folders)
    scans = scans_to_learn_from(dataset, split, groups, [scan.name for scan in unlabelled_scans(dataset)])
    own = {case: groups[case] for case in split.train} | scans
    patients = {root / case: patient for case, patient in own.items()}
    if unlabelled is not None:
        found = _scans_in(unlabelled, dataset)
        allowed = scans_to_learn_from(dataset, split, groups, list(found), str(unlabelled))
        place = folders.preprocessed / dataset.name / "unlabelled" / sha256_of_text(str(unlabelled.resolve()))[:12]
        preprocess_scans([CaseFiles(scan, found[scan]) for scan in allowed], plan, place)
        held_out = [root / record.properties.name for record in records_of(dataset, split.val, folders)]
        patients |= _without_images_of({place / scan: patient for scan, patient in allowed.items()}, held_out)
    return Material(patients, tuple(own))


def _scans_in(folder: Path, dataset: DatasetSpec) -> dict[str, tuple[Path, ...]]:
    if folder.resolve() == (dataset.folder / "imagesTs").resolve():
        raise UsageError(f"--unlabelled {folder}: these are the test cases, which nothing may be learnt from.")
    found = group_by_case(folder, dataset.file_ending)
    if not found:
        raise UsageError(f"--unlabelled {folder}: no {dataset.file_ending} files in it. Name a folder with scans.")
    return found


def _without_images_of(scans: Mapping[Path, str], held_out: Sequence[Path]) -> dict[Path, str]:
    """Return the scans whose preprocessed image is not that of a held-out case, whatever they are called."""
    sizes = {_image_of(scan).stat().st_size for scan in scans}
    images = [image for case in held_out if (image := _image_of(case)).stat().st_size in sizes]
    known = {sha256_of_files([image]) for image in images}
    kept = {scan: patient for scan, patient in scans.items() if sha256_of_files([_image_of(scan)]) not in known}
    if len(kept) < len(scans):
        log.warning("%d scans are left out: their images are those of cases held out", len(scans) - len(kept))
    return kept


def _image_of(case: Path) -> Path:
    return case / "image.npy"
