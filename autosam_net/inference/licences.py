"""What goes with a model that is handed on: a description of its data, and the licences that it comes under."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from autosam_net.data.dataset import texts_in
from autosam_net.data.plan import Plan
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.jsonio import read_json

UNKNOWN = "Not stated. Ask whoever made it."


def dataset_description(plan: Plan, folders: Sequence[Path]) -> dict[str, Any]:
    """Return a dataset.json: channels, labels and file ending of the plan, and the texts of the first one in `folders`.

    Names of cases are left out.
    """
    known: dict[str, Any] = next(
        (read_json(folder / "dataset.json") for folder in folders if (folder / "dataset.json").is_file()), {}
    )
    order = plan.regions_class_order
    return {
        **texts_in(known),
        "channel_names": {str(index): name for index, name in enumerate(plan.channel_names)},
        "labels": plan.labels,
        **({} if order is None else {"regions_class_order": order}),
        "file_ending": plan.file_ending,
    }


def licences(plan: Plan, description: dict[str, Any], licence: str | None) -> str:
    """Return LICENSES.md: of model, data, encoder and program, with the program's in full.

    Args:
        description: as `dataset_description` returns it.
        licence: of the model, as its makers give it.
    """
    source = ENCODERS.get(plan.encoding.encoder).weights if plan.encoding.weights is None else None
    sections = {
        "The model": licence or UNKNOWN,
        f"The data that it was trained on ({plan.dataset})": description.get("licence")
        or description.get("license")
        or UNKNOWN,
        f"The encoder ({plan.encoding.encoder}), whose weights are not included": (source and source.licence)
        or UNKNOWN,
        "autosam_net, and segment_anything, from which the vit head is made": program_licence(),
    }
    return "# Licences\n\n" + "\n".join(f"## {title}\n\n{text}\n" for title, text in sections.items())


def program_licence() -> str:
    """Return the text of the Apache License 2.0 that is installed with the program."""
    files = metadata.files("autosam_net") or ()
    return next(file for file in files if file.name == "LICENSE").read_text(encoding="utf-8").strip("\n")
