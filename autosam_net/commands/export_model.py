"""`autosam_export_model 27 -c vit -o model.zip`: a model in one file, to hand on or to archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import folders_of, load_libraries, new_parser, run
from autosam_net.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_export_model --help`."""
    parser = new_parser(
        "Write a trained model into one zip for autosam_install_model and autosam_predict -m (heads, plan, "
        "description, licences, checksums; the encoder by name only), or into one ONNX graph for other programs."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="NAME",
        help="one or several trained models, e.g. vit cnn (default: what autosam_find_best_configuration chose)",
    )
    parser.add_argument("-f", "--folds", nargs="+", metavar="K", help="folds to export (default: all that are trained)")
    parser.add_argument("-o", "--output", type=Path, metavar="ZIP", help="the model as a zip")
    parser.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="encoder and heads as one graph, from the encoder's input to logits (needs the extra onnx)",
    )
    parser.add_argument("--licence", metavar="TEXT", help="of the model, e.g. CC-BY-4.0; written into the zip")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    return run(_export, parser, argv)


def _export(arguments: argparse.Namespace) -> None:
    targets = [path for path in (arguments.output, arguments.onnx) if path is not None]
    if not targets:
        raise UsageError("nothing to write: give -o model.zip, --onnx model.onnx, or both")
    for target in targets:
        if target.exists() and not arguments.overwrite:
            raise UsageError(f"{target}: exists already. Choose another name, or give --overwrite.")
    load_libraries()
    if arguments.output is not None:
        _export_zip(arguments)
    if arguments.onnx is not None:
        _export_onnx(arguments)


def _export_zip(arguments: argparse.Namespace) -> None:
    from autosam_net.files import sha256_of_files
    from autosam_net.inference.package import export_model

    manifest = export_model(
        arguments.dataset,
        arguments.output,
        arguments.configurations,
        arguments.folds,
        arguments.licence,
        arguments.overwrite,
        folders_of(arguments),
    )
    size = arguments.output.stat().st_size / 2**20
    print(f"{arguments.output}: {len(manifest.files)} files, {size:.1f} MiB; encoder {manifest.encoder.name}")
    print(f"sha256 {sha256_of_files([arguments.output])}")


def _export_onnx(arguments: argparse.Namespace) -> None:
    from autosam_net.inference.load import load_model
    from autosam_net.inference.onnx_graph import export_onnx

    model = load_model(arguments.dataset, arguments.configurations, arguments.folds, "cpu", folders_of(arguments))
    difference = export_onnx(model, arguments.onnx)
    side, size = model.plan.encoding.input_size, arguments.onnx.stat().st_size / 2**20
    print(
        f"{arguments.onnx}: images (N, 3, {side}, {side}) -> logits (N, {model.plan.label_set.outputs}, {side}, {side})"
    )
    print(f"{size:.1f} MiB, {len(model.heads)} heads; onnxruntime differs from torch by {difference:.1e} at most")
