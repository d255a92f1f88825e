"""autosam_convert_acdc: the ACDC challenge's download (cine cardiac MR) as Dataset027_ACDC.

Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018. Of every patient two frames are labelled, the
relaxed and the contracted heart; the file of all frames (`_4d`) has no labels and is left out.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import DatasetError
from dataset_conversion.raw_writer import (
    Copy,
    RawDescription,
    add_converter_flags,
    copy_files,
    dataset_number,
    existing_folder,
    list_some,
    new_raw_dataset,
    report,
)

FRAME = re.compile(r"(patient\d+_frame\d+)(_gt)?(\.nii(?:\.gz)?)")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser("Turn the ACDC download into the raw data set Dataset027_ACDC.")
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="DIR", help="the download, or its training/")
    parser.add_argument(
        "-d", "--dataset", type=dataset_number, default=27, metavar="ID", help="its number (default 27)"
    )
    add_converter_flags(parser)
    return run(_convert, parser, argv)


def convert_acdc(
    source: Path, raw: Path, identifier: int = 27, overwrite: bool = False, workers: int | None = None
) -> RawDescription:
    """Write `DatasetNNN_ACDC` into the folder of raw data sets; files are copied as they are.

    Args:
        source: the download's root (with training/, and testing/ where it is there), or its training folder.

    Raises:
        DatasetError: there are no patients, a frame lacks its labels, or the data set exists.
        UsageError: there is no such folder.
    """
    training = _find_training(existing_folder(source))
    frames = _find_frames(training)
    _, _, ending = next(iter(frames.values()))
    testing = training.parent / "testing" if training.name == "training" else None
    tests = _find_frames(testing) if testing is not None and testing.is_dir() else {}
    description = _describe(identifier, ending)
    with new_raw_dataset(description, raw, overwrite) as folder:
        copy_files([*_copies(frames, "Tr", ending), *_copies(tests, "Ts", ending)], folder, workers)
    return description


def _find_training(source: Path) -> Path:
    for folder in (source, source / "training", source / "database" / "training"):
        if any(folder.glob("patient*/patient*_frame*.nii*")):
            return folder
    raise DatasetError(
        f"{source}: no files patientNNN/patientNNN_frameMM.nii.gz found in it or its folder training. "
        "Give the folder of the unpacked ACDC download."
    )


def _find_frames(folder: Path) -> dict[str, tuple[Path, Path, str]]:
    """Return case -> image, labels and file ending of each labelled frame.

    Raises:
        DatasetError: a frame has no labels, labels have no frame, or endings are mixed.
    """
    images: dict[str, tuple[Path, str]] = {}
    labels: dict[str, Path] = {}
    for path in sorted(folder.glob("patient*/patient*_frame*")):
        match = FRAME.fullmatch(path.name)
        if match and match.group(2):
            labels[match.group(1)] = path
        elif match:
            images[match.group(1)] = (path, match.group(3))
    if alone := sorted(set(images) ^ set(labels)):
        missing = f"{alone[0]}_gt.nii.gz" if alone[0] in images else f"{alone[0]}.nii.gz"
        raise DatasetError(
            f"{folder}: {list_some(alone)}: image or labels missing, for one {missing}. "
            "Unpack the download again, or remove the patient's folder."
        )
    if len({ending for _, ending in images.values()}) > 1:
        raise DatasetError(f"{folder}: holds both .nii and .nii.gz frames, expected one kind. Compress the .nii files.")
    return {case: (path, labels[case], ending) for case, (path, ending) in images.items()}


def _copies(frames: dict[str, tuple[Path, Path, str]], part: str, ending: str) -> list[Copy]:
    return [
        copy
        for case, (image, label, _) in frames.items()
        for copy in (
            Copy(image, f"images{part}/{case}_0000{ending}"),
            Copy(label, f"labels{part}/{case}{ending}"),
        )
    ]


def _describe(identifier: int, ending: str) -> RawDescription:
    return RawDescription(
        identifier,
        "ACDC",
        ("MRI",),
        {"background": 0, "RV": 1, "MYO": 2, "LV": 3},
        ending,
        group_pattern=r"^(patient\d+)",
        remarks={
            "description": "cine cardiac MR, short axis, relaxed and contracted heart",
            "reference": "Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018",
            "license": "CC BY-NC-SA 4.0",
        },
    )


def _convert(arguments: argparse.Namespace) -> None:
    raw = folders_of(arguments).raw
    description = convert_acdc(arguments.input, raw, arguments.dataset, arguments.overwrite, arguments.workers)
    report(description, arguments)
