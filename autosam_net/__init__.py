"""autosam_net: a frozen Segment Anything encoder turned into a medical segmentation model, from few labels.

The Python interface, each name imported from its home when first used:

    find_dataset(27)             the raw data set `Dataset027_...`
    preprocess_dataset(...)      raw cases -> normalised slices on disk
    embed_dataset(...)           slices -> embeddings on disk, the encoder's only run
    train_head(...)              embeddings -> a trained head
    load_model(...)              trained heads -> a model with predict_case(array, spacing) and predict_folder(...)
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "find_dataset": "autosam_net.data.dataset",
    "find_folders": "autosam_net.paths",
    "load_plan": "autosam_net.data.plan",
    "preprocess_dataset": "autosam_net.preprocessing.preprocess",
    "embed_dataset": "autosam_net.embedding.embed",
    "train_head": "autosam_net.training.train",
    "load_model": "autosam_net.inference.model",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
