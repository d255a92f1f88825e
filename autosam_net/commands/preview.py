"""`autosam_preview -d 27`: pictures of raw cases with their labels, before anything is computed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from autosam_net.data.dataset import CaseFiles
    from autosam_net.reporting.preview import PreviewOptions


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_preview --help`."""
    parser = new_parser("Draw raw cases with their labels, one PNG each: some slices plain, filled and outlined.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", "--dataset", metavar="ID", help="number or name of a raw data set")
    source.add_argument(
        "-i", "--images", type=Path, nargs="+", metavar="PATH", help="folder of images or DICOM series, or one of them"
    )
    parser.add_argument("-l", "--labels", type=Path, metavar="FOLDER", help="with -i: label maps, called as the images")
    place = "for the pictures (default with -d: preview/ beside the preprocessed data)"
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=place)
    parser.add_argument("-n", "--number", type=int, default=12, metavar="N", help="so many cases of all (default 12)")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these cases")
    parser.add_argument("--slices", type=int, default=5, metavar="N", help="slices of each case at most (default 5)")
    parser.add_argument(
        "--channel", type=int, default=0, help="channel of images that are no colour images (default 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are in the folder of -o")
    return run(_preview, parser, argv)


def _preview(arguments: argparse.Namespace) -> None:
    for name, least in (("number", 1), ("slices", 1), ("channel", 0)):
        if getattr(arguments, name) < least:
            raise UsageError(f"--{name} {getattr(arguments, name)}: give {least} or more")
    from autosam_net.parallel import progress
    from autosam_net.reporting.preview import write_preview

    cases, options, output = _of_dataset(arguments) if arguments.dataset is not None else _of_files(arguments)
    chosen = _choose(cases, arguments)
    targets = {case.name: output / f"{case.name}.png" for case in chosen}
    _check_targets(chosen, targets, replace_own=arguments.overwrite or arguments.output is None)
    for case in progress(chosen, "preview", len(chosen), name=lambda case: case.name):
        write_preview(case, targets[case.name], options)
    print(f"{len(chosen)} of {len(cases)} cases drawn: {output}")


def _of_dataset(arguments: argparse.Namespace) -> tuple[Sequence[CaseFiles], PreviewOptions, Path]:
    """Return cases, settings and folder for a raw data set; its plan, if there is one, says which axis is cut."""
    from autosam_net.data.dataset import find_dataset, training_cases
    from autosam_net.data.plan import load_plan
    from autosam_net.reporting.preview import PreviewOptions

    if arguments.labels is not None:
        raise UsageError("--labels goes with -i; a raw data set has its labels in labelsTr")
    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    preprocessed = folders.preprocessed / dataset.name
    options = PreviewOptions(arguments.slices, arguments.channel, labels=dataset.labels)
    if (preprocessed / "plan.json").is_file():
        options = replace(options, axis=load_plan(preprocessed / "plan.json").preprocessing.slice_axis)
    cases = [case for case in training_cases(dataset) if case.images]
    if not cases:
        raise DatasetError(f"{dataset.folder / 'imagesTr'}: no images *{dataset.file_ending}. Put them there.")
    return cases, options, arguments.output or preprocessed / "preview"


def _of_files(arguments: argparse.Namespace) -> tuple[Sequence[CaseFiles], PreviewOptions, Path]:
    """Return cases, settings and folder for image files; every file is a case."""
    from autosam_net.inference.inputs import find_inputs
    from autosam_net.reporting.preview import PreviewOptions

    if arguments.output is None:
        raise UsageError("-o is missing: name a folder for the pictures")
    cases = find_inputs(arguments.images, channels=1)
    if arguments.labels is not None:
        labels = {case.name: case.images[0] for case in find_inputs([arguments.labels], channels=1)}
        if not any(case.name in labels for case in cases):
            raise DatasetError(f"{arguments.labels}: no file is called as an image. Give label maps the images' names.")
        cases = [replace(case, label=labels.get(case.name)) for case in cases]
    return cases, PreviewOptions(arguments.slices, arguments.channel), arguments.output


def _choose(cases: Sequence[CaseFiles], arguments: argparse.Namespace) -> list[CaseFiles]:
    from autosam_net.registry import suggest
    from autosam_net.reporting.overlay import spread

    if arguments.cases is None:
        return spread(cases, arguments.number)
    by_name = {case.name: case for case in cases}
    for name in arguments.cases:
        if name not in by_name:
            raise DatasetError(f"no case {name!r}; {suggest(name, by_name)}")
    return [by_name[name] for name in dict.fromkeys(arguments.cases)]


def _check_targets(cases: Sequence[CaseFiles], targets: dict[str, Path], replace_own: bool) -> None:
    """Refuse to write over raw files in any case, and over other files unless it was asked for."""
    raw = {path.resolve() for case in cases for path in (*case.images, case.label) if path is not None}
    for target in targets.values():
        if target.resolve() in raw:
            raise UsageError(f"{target}: the picture would overwrite raw data. Choose another folder for -o.")
        if target.exists() and not replace_own:
            raise UsageError(f"{target} exists. Give --overwrite to replace it, or choose another folder.")
