"""Check a plan that may have been edited by hand: every wrong value is refused by name, with its cure."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from typing import Any

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import FOREGROUND, POSES, Configuration, Encoding, Normalization, Plan, Preprocessing
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import PlanError
from autosam_net.jsonio import to_json
from autosam_net.preprocessing.normalization import NORMALIZATIONS
from autosam_net.registry import suggest

MOST_OVERLAP = 0.75  # beyond it the number of tiles explodes
MOST_ROTATION = 180.0  # degrees


def validate_plan(plan: Plan, dataset: DatasetSpec) -> None:
    """Refuse a plan that cannot be carried out on the data set; the heads are looked up, which loads torch.

    Raises:
        PlanError: names the key, the value found, what is expected and what to do.
    """
    _check_dataset(plan, dataset)
    _check_preprocessing(plan.preprocessing, len(dataset.channel_names))
    _check_encoding(plan.encoding, len(dataset.channel_names))
    _demand(bool(plan.configurations), "configurations", "{}", "at least one")
    for name, configuration in plan.configurations.items():
        _check_configuration(configuration, plan.encoding.input_size, f"configurations: {name}")
    for name in plan.keep_largest:
        _known(name, {FOREGROUND, *plan.label_set.targets}, "keep_largest")
    one_piece = not (plan.keep_largest and plan.label_set.has_regions)
    _demand(one_piece, "keep_largest", list(plan.keep_largest), "none, since regions overlap")
    _demand(plan.folds >= 2, "folds", plan.folds, "2 or more")
    if plan.group_pattern is not None:
        try:
            re.compile(plan.group_pattern)
        except re.error as error:
            raise PlanError(
                f"plan.json: group_pattern {plan.group_pattern!r} is no regular expression: {error}"
            ) from None


def _check_dataset(plan: Plan, dataset: DatasetSpec) -> None:
    pairs = (
        ("dataset", plan.dataset, dataset.name),
        ("channel_names", plan.channel_names, dataset.channel_names),
        ("labels", plan.labels, dataset.labels.values),
        ("regions_class_order", plan.regions_class_order, dataset.labels.regions_class_order),
        ("file_ending", plan.file_ending, dataset.file_ending),
    )
    for key, planned, given in pairs:
        if _ordered(planned) != _ordered(given):
            raise PlanError(
                f"plan.json: {key}: found {to_json(planned)}, but dataset.json says {to_json(given)}. "
                "Correct it, or make a new plan with --replan."
            )


def _ordered(value: Any) -> Any:
    data = to_json(value)
    return list(data.items()) if isinstance(data, dict) else data  # the order of labels is that of the outputs


def _check_preprocessing(settings: Preprocessing, channels: int) -> None:
    where = "preprocessing"
    _demand(settings.slice_axis in (0, 1, 2), f"{where}: slice_axis", settings.slice_axis, "0, 1 or 2")
    _demand(0 < settings.spacing < math.inf, f"{where}: spacing", settings.spacing, "a number above 0 (mm)")
    found = len(settings.normalizations)
    _demand(found == channels, f"{where}: normalizations", f"{found} entries", f"{channels}, one a channel")
    for index, entry in enumerate(settings.normalizations):
        _check_normalization(entry, f"{where}: normalizations: [{index}]")


def _check_normalization(entry: Normalization, where: str) -> None:
    _known(entry.name, NORMALIZATIONS, f"{where}: name")
    found = f"lower {entry.lower:g}, upper {entry.upper:g}"
    if entry.name == "ct":
        _demand(entry.lower < entry.upper, where, found, "lower below upper (HU)")
    if entry.name == "percentile":
        _demand(0 <= entry.lower < entry.upper <= 100, where, found, "percentages, 0 <= lower < upper <= 100")


def _check_encoding(encoding: Encoding, channels: int) -> None:
    where = "encoding"
    _check_encoder(encoding.encoder, encoding.input_size, f"{where}: encoder")
    has_weights = ENCODERS.get(encoding.encoder).weights is not None
    _demand(has_weights, f"{where}: encoder", encoding.encoder, "one with weights")
    if encoding.weights_file is not None:
        _demand(encoding.weights_file.is_file(), f"{where}: weights", encoding.weights, "a file that exists, or null")
    _demand(0 <= encoding.overlap <= MOST_OVERLAP, f"{where}: overlap", encoding.overlap, f"0 to {MOST_OVERLAP}")
    for index, source in enumerate(encoding.rgb):
        key = f"{where}: rgb: [{index}]: channel"
        _demand(0 <= source.channel < channels, key, source.channel, f"0 to {channels - 1}, the channels of the images")
    for key in ("maximum_views", "slice_budget"):
        _demand(getattr(encoding, key) >= 1, f"{where}: {key}", getattr(encoding, key), "1 or more")
    _demand(0 <= encoding.rotation <= MOST_ROTATION, f"{where}: rotation", encoding.rotation, f"0 to {MOST_ROTATION:g}")
    poses = encoding.poses
    fits = set(poses) <= set(POSES) and len(set(poses)) == len(poses)
    _demand(fits, f"{where}: poses", list(poses), f"some of {', '.join(POSES)}, each once")


def _check_encoder(name: str, size: int, where: str) -> None:
    _known(name, ENCODERS, where)
    step = ENCODERS.get(name).multiple
    fits = size >= step and size % step == 0
    _demand(fits, "encoding: input_size", size, f"a multiple of {step} for {name}")


def _check_configuration(configuration: Configuration, size: int, where: str) -> None:
    import autosam_net.heads  # noqa: F401  (registers the built-in heads)
    from autosam_net.heads.head import HEADS

    _known(configuration.head, HEADS, f"{where}: head")
    recipe: Any = HEADS.get(configuration.head).recipe
    if (own := configuration.encoder) is not None:
        _check_encoder(own, size, f"{where}: encoder")
    if recipe.encoder is not None:
        _demand(own == recipe.encoder, f"{where}: encoder", own, f"{recipe.encoder} for the head {configuration.head}")
    elif own is not None:
        expected = f"null, or one with weights for the head {configuration.head}"
        _demand(ENCODERS.get(own).weights is not None, f"{where}: encoder", own, expected)
    known: Mapping[str, float] = recipe.settings
    for key in configuration.settings:
        _known(key, known, f"{where}: settings")
    for key in ("batch_size", "epochs", "maximum_epochs", "iterations"):
        value = getattr(configuration, key)
        _demand(value >= 1, f"{where}: {key}", value, "1 or more")
    rate, decay = configuration.learning_rate, configuration.weight_decay
    _demand(0 < rate < math.inf, f"{where}: learning_rate", rate, "a number above 0")
    _demand(0 <= decay < math.inf, f"{where}: weight_decay", decay, "0 or more")


def _known(name: str, known: Container[str], where: str) -> None:
    if name not in known:
        raise PlanError(f"plan.json: {where}: {name!r} is not known; {suggest(name, known)}")


def _demand(holds: bool, key: str, found: object, expected: str) -> None:
    if not holds:
        raise PlanError(f"plan.json: {key}: found {found}, expected {expected}. Correct it, or use --replan.")
