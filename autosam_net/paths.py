"""The three folders: raw data sets, preprocessed data and results; and the folder of pretrained networks."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

DEFAULT = "the default"


@dataclass(frozen=True)
class Folders:
    """Where raw data sets are read, and where preprocessed data and results are written."""

    raw: Path
    preprocessed: Path
    results: Path


def find_folders(root: Path | str | None = None) -> Folders:
    """Return the three folders, read from the environment at the time of the call.

    With `root`: its sub-folders raw, preprocessed and results. Else, one by one: `autosam_raw`, then `nnUNet_raw`,
    then `~/autosam/raw`; the same for the other two. Inside a folder of nnU-Net's for preprocessed data or results
    ours lie in a sub-folder `autosam_net`, so that no file of nnU-Net's is ever overwritten.
    """
    if root is not None:
        base = Path(root).expanduser().absolute()  # worker processes may have another working folder
        return Folders(base / "raw", base / "preprocessed", base / "results")
    return Folders(_folder("raw", ""), _folder("preprocessed", "autosam_net"), _folder("results", "autosam_net"))


def root_flag(folders: Folders) -> str:
    """Return the --root, after a space, that a command needs for these folders; nothing where it needs none."""
    root = folders.results.parent
    needed = folders != find_folders() and folders == find_folders(root)
    return f" --root {shlex.quote(str(root))}" if needed else ""


def encoders_folder() -> Path:
    """Return the folder of the user's own pretrained networks: `autosam_encoders`, else in the user's data folder."""
    import platformdirs

    named = _variable("autosam_encoders")
    return Path(named).expanduser() if named else platformdirs.user_data_path("autosam_net") / "encoders"


def folder_origins(root: Path | str | None = None) -> dict[str, str]:
    """Return folder ("raw", "preprocessed", "results") -> what `find_folders` took it from.

    It is `--root`, the name of an environment variable, or `the default`.
    """
    names = ("raw", "preprocessed", "results")
    return dict.fromkeys(names, "--root") if root is not None else {name: _origin(name) for name in names}


def _folder(name: str, inside_nnunet: str) -> Path:
    origin = _origin(name)
    if origin == DEFAULT:
        return Path.home() / "autosam" / name
    path = Path(_variable(origin)).expanduser()
    return path / inside_nnunet if origin.startswith("nnUNet") else path


def _origin(name: str) -> str:
    return next((variable for variable in (f"autosam_{name}", f"nnUNet_{name}") if _variable(variable)), DEFAULT)


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip().strip("\"'")  # Windows shells keep the quotes
