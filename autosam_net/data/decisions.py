"""What a plan decided, in words."""

from __future__ import annotations

from autosam_net.data.configuration import Configuration
from autosam_net.data.plan import Plan


def decisions(plan: Plan) -> dict[str, str]:
    """Return decision -> what was decided, in words, for every key of `plan.reasons` that a plan can have."""
    encoding, preprocessing = plan.encoding, plan.preprocessing
    channels = [f"{source.channel}" + (f"{source.offset:+d}" if source.offset else "") for source in encoding.rgb]
    return {
        "slice axis": "ZYX"[preprocessing.slice_axis],
        "encoder": encoding.encoder,
        "input size": f"{encoding.input_size} px",
        "spacing": f"{preprocessing.spacing:g}",
        "tiles": f"overlap {encoding.overlap:.0%}",
        "normalisation": ", ".join(entry.name for entry in preprocessing.normalizations),
        "input channels": " ".join(channels),
        "pixels": "kept" if encoding.pixels else "left out",
        "rotation": f"{encoding.rotation:g} degrees",
        "poses": " ".join(encoding.poses) or "none",
        "precision": "by device",
        "largest component": ", ".join(plan.keep_largest) or "none",
        "folds": str(plan.folds),
        "views": f"up to {encoding.maximum_views}",
        "strategy": plan.strategy,
        **{f"head {name}": _in_words(entry) for name, entry in plan.configurations.items()},
    }


def _in_words(entry: Configuration) -> str:
    epochs = f"{entry.epochs}-{entry.maximum_epochs} epochs"
    own = "" if entry.encoder is None else f", on {entry.encoder}"
    parts = "" if entry.crop == 1 else f" parts of {entry.crop:.0%} of the side"
    tuned = "" if entry.tuning is None else f", tuned {entry.tuning.part}:{entry.tuning.method}"
    prompted = "" if entry.prompts is None else f", {entry.prompts.in_words}"
    return (
        f"{epochs} x {entry.iterations} x {entry.batch_size}{parts}, lr {entry.learning_rate:g}{own}{tuned}{prompted}"
    )
