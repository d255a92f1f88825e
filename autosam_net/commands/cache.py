"""`autosam_cache list|verify|prune`: look after the embedding cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.errors import AutosamError, CacheError


def main(argv: list[str] | None = None) -> int:
    """Run the command; see `autosam_cache --help`."""
    parser = new_parser("List, verify or prune cached embeddings; what is pruned is computed again when needed.")
    what = "list: sizes and counts; verify: read everything and compare checksums; prune: remove"
    parser.add_argument("action", choices=("list", "verify", "prune"), help=what)
    parser.add_argument("-d", "--dataset", metavar="ID", help="number or name (default: every data set)")
    parser.add_argument(
        "--damaged", action="store_true", help="prune: only entries that cannot be read or fail their checksum"
    )
    return run(_look_after, parser, argv)


def _look_after(arguments: argparse.Namespace) -> None:
    from autosam_net.data.dataset import dataset_folder_name, list_datasets

    preprocessed = folders_of(arguments).preprocessed
    if arguments.dataset is not None:
        cure = "Run autosam_plan_and_preprocess first, or point --root or autosam_preprocessed to the right folder."
        names = [dataset_folder_name(arguments.dataset, preprocessed, cure)]
    else:
        names = list_datasets(preprocessed)
    action = {"list": _list, "verify": _verify, "prune": _prune}[arguments.action]
    for name in names:
        action(preprocessed / name / "embeddings", arguments)


def _list(root: Path, arguments: argparse.Namespace) -> None:
    from autosam_net.embedding.cache import cache_use

    found = cache_use(root)
    for use in found:
        print(f"{root.parent.name}  {use.settings}  {use.cases} cases  {use.views} views and poses  {use.mib:.0f} MiB")
    if not found:
        print(f"{root.parent.name}  no cached embeddings")


def _verify(root: Path, arguments: argparse.Namespace) -> None:
    damaged = _damaged(root)
    if damaged:
        raise CacheError(
            f"{root}: {len(damaged)} damaged entries, the first {damaged[0].relative_to(root)}. "
            "Run `autosam_cache prune --damaged`; they are computed again when needed."
        )
    print(f"{root.parent.name}  all entries are whole")


def _prune(root: Path, arguments: argparse.Namespace) -> None:
    from autosam_net.embedding.cache import list_entries, remove_entry
    from autosam_net.parallel import progress

    folders = _damaged(root) if arguments.damaged else [folder for folder, _ in list_entries(root)]
    for folder in progress(folders, "remove", len(folders), "view", lambda folder: folder.parent.name):
        remove_entry(folder)
    print(f"{root.parent.name}  {len(folders)} entries removed")


def _damaged(root: Path) -> list[Path]:
    from autosam_net.embedding.cache import list_entries, verify_entry
    from autosam_net.parallel import progress

    entries = list(list_entries(root))
    damaged = []
    for folder, record in progress(entries, "verify", len(entries), "view", lambda entry: entry[0].parent.name):
        try:
            if record is None:
                raise AutosamError("no record")
            verify_entry(folder, record)
        except AutosamError:
            damaged.append(folder)
    return damaged
