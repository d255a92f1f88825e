"""`autosam_pretrain 27`: let the plan's encoder, or a U-Net, learn from images without labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import (
    add_device,
    add_resources,
    demand_positive,
    device_of,
    folders_of,
    load_libraries,
    new_parser,
    run,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_pretrain --help`."""
    parser = new_parser(
        "Pretrain without labels: the plan's encoder by masked image modelling, or with -c unet the first half of a "
        "U-Net by contrastive learning. It sees the images of a fold's training cases and the scans in imagesUn, "
        "never what the fold holds out. The result has a name, under which other commands find it."
    )
    parser.add_argument("dataset", help="number or name of the data set, e.g. 27")
    parser.add_argument(
        "-c", "--configuration", metavar="NAME", help="pretrain what this trains from scratch, e.g. unet"
    )
    parser.add_argument(
        "--fold", default="0", metavar="K", help="whose training cases are seen (default 0); all for every case"
    )
    parser.add_argument("--unlabelled", type=Path, metavar="DIR", help="folder with more scans, named as in imagesTr")
    parser.add_argument("--name", metavar="NAME", help="of the result (default: such as lite_medsam_027_fold0)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of batches and what is random (default 0)")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="slices of an encoder's batch (default 4), pairs of a U-Net's (32)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of 10 batches each (default: ten times each slice)")
    limit = "limit of everything together; one epoch is done in any case"
    parser.add_argument("--max-minutes", type=float, metavar="M", help=limit)
    parser.add_argument("--overwrite", action="store_true", help="throw an earlier pretraining of that name away")
    add_device(parser)
    add_resources(parser, workers=None)
    return run(_pretrain, parser, argv)


def _pretrain(arguments: argparse.Namespace) -> None:
    demand_positive(arguments, "epochs", "max_minutes", "batch_size")
    load_libraries("autosam_net.training.pretrain")
    from autosam_net.data.dataset import find_dataset
    from autosam_net.training.check_plan import load_checked_plan
    from autosam_net.training.pretrain import PretrainingOptions, pretrain

    folders = folders_of(arguments)
    dataset = find_dataset(arguments.dataset, folders)
    plan = load_checked_plan(folders.preprocessed / dataset.name / "plan.json", arguments.configuration)
    options = PretrainingOptions(
        fold=arguments.fold,
        unlabelled=arguments.unlabelled,
        configuration=arguments.configuration,
        name=arguments.name,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        max_minutes=arguments.max_minutes,
        device=device_of(arguments),
        overwrite=arguments.overwrite,
    )
    record = pretrain(dataset, plan, options, folders)
    print(f"{record.name}: {record.description}")
    print(f"{record.file} (sha256 {record.sha256})")
    number, fold = dataset.identifier, record.fold
    if record.is_encoder:
        print(f"autosam_plan_and_preprocess -d {number} --encoder {record.name}, then autosam_train as always")
    else:
        print(f"autosam_train {number} {arguments.configuration} {fold} --pretrained {record.name}")
    if fold != "all":
        print(f"fold {fold} has not been seen; other folds hold cases out that have, and a training of them says so")
