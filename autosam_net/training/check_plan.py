"""Check what a plan says before anything is computed by it: it may be edited by hand, or damaged, or forged."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from autosam_net.data.configuration import STRATEGIES, Tuning
from autosam_net.data.encoding import CELL, POSES, Encoding
from autosam_net.data.plan import FOREGROUND, Normalization, Plan, Preprocessing, load_plan
from autosam_net.data.prompts import PromptOptions
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import DatasetError, PlanError
from autosam_net.preprocessing.normalization import NORMALIZATIONS
from autosam_net.registry import suggest

MOST_OVERLAP = 0.75  # beyond it the number of tiles explodes
MOST_ROTATION = 180.0  # degrees
MOST_INPUT = 1024  # px; attention over all patches of larger inputs takes tens of GB
MOST_CLASSES = 1000  # each costs a map of probabilities
MOST_RANK = 256  # of a low-rank update; TinyViT's layers are 128 to 320 wide


def load_checked_plan(path: Path, configuration: str | None = None) -> Plan:
    """Return the plan in a file, its values checked, and those of a configuration where one is named.

    Raises:
        PlanError: as `load_plan`, `check_plan` and `check_configuration`.
    """
    plan = load_plan(path)
    check_plan(plan, str(path))
    if configuration is not None:
        plan.configuration(configuration)
        check_configuration(plan, configuration, str(path))
    return plan


def check_plan(plan: Plan, where: str = "plan.json") -> None:
    """Refuse a plan with a value that no plan can have, or that would take all memory; its configurations are left out.

    Raises:
        PlanError: names the key, the value found, what is expected and what to do.
    """
    try:
        targets = plan.label_set.targets
    except DatasetError as error:
        raise PlanError(f"{where}: {str(error).removeprefix('dataset.json: ')}") from error
    demand(len(targets) <= MOST_CLASSES, f"{where}: labels", len(targets), f"at most {MOST_CLASSES} classes")
    _check_preprocessing(plan.preprocessing, len(plan.channel_names), f"{where}: preprocessing")
    _check_encoding(plan.encoding, len(plan.channel_names), f"{where}: encoding")
    for name in plan.keep_largest:
        known(name, {FOREGROUND, *targets}, f"{where}: keep_largest")
    known(plan.strategy, STRATEGIES, f"{where}: strategy")
    one_piece = not (plan.keep_largest and plan.label_set.has_regions)
    demand(one_piece, f"{where}: keep_largest", list(plan.keep_largest), "none, since regions overlap")
    check_prompts(plan.prompts, f"{where}: prompts")


def check_configuration(plan: Plan, name: str, where: str = "plan.json") -> None:
    """Refuse a configuration that cannot be trained.

    Raises:
        PlanError: names the key, the value found, what is expected and what to do.
    """
    import autosam_net.heads  # noqa: F401  (registers the built-in heads)
    from autosam_net.heads.head import HEADS

    configuration, where = plan.configurations[name], f"{where}: configurations: {name}"
    known(configuration.head, HEADS, f"{where}: head")
    recipe: Any = HEADS.get(configuration.head).recipe
    if (own := configuration.encoder) is not None:
        _check_encoder(own, plan.encoding.input_size, f"{where}: encoder")
    if recipe.encoder is not None:
        demand(own == recipe.encoder, f"{where}: encoder", own, f"{recipe.encoder} for the head {configuration.head}")
    elif own is not None:
        expected = f"null, or one with weights for the head {configuration.head}"
        demand(ENCODERS.get(own).weights is not None, f"{where}: encoder", own, expected)
    settings: Mapping[str, float] = recipe.settings
    for key in configuration.settings:
        known(key, settings, f"{where}: settings")
    for key in ("batch_size", "epochs", "maximum_epochs", "iterations"):
        value = getattr(configuration, key)
        demand(value >= 1, f"{where}: {key}", value, "1 or more")
    rate, decay = configuration.learning_rate, configuration.weight_decay
    whole = configuration.tuning is not None and configuration.tuning.of_encoder  # as the encoder takes them
    _check_crop(configuration.crop, recipe.crop < 1 and not whole, f"{where}: crop")
    demand(0 < rate < math.inf, f"{where}: learning_rate", rate, "a number above 0")
    demand(0 <= decay < math.inf, f"{where}: weight_decay", decay, "0 or more")
    check_tuning(configuration.tuning, configuration.head, f"{where}: tuning")
    given, needed = (
        "none" if options is None else options.in_words for options in (configuration.prompts, recipe.prompts)
    )
    fits = (given == "none") == (needed == "none")
    demand(fits, f"{where}: prompts", given, f"{needed} for the head {configuration.head}")
    check_prompts(configuration.prompts, f"{where}: prompts")


def check_prompts(options: PromptOptions | None, where: str) -> None:
    """Refuse settings of prompts that contradict each other.

    Raises:
        PlanError: says which.
    """
    if options is not None and options.problem is not None:
        raise PlanError(f"{where}: {options.problem}. Correct it, or use --replan.")


def check_tuning(tuning: Tuning | None, head: str, where: str) -> None:
    """Refuse a tuning that a head has nothing for, or that has a value that none can have.

    Raises:
        PlanError: names the key, the value found, what is expected and what to do.
    """
    from autosam_net.heads.head import HEADS

    if tuning is None:
        return
    recipe: Any = HEADS.get(head).recipe
    if recipe.encoder is not None:
        raise PlanError(f"{where}: the head {head} is trained from scratch, so that there is nothing to tune.")
    if tuning.part == "head" and tuning.method != "full" and not hasattr(HEADS.get(head), "pretrained"):
        raise PlanError(
            f"{where}: the head {head} has nothing pretrained that {tuning.method} could tune, it always learns as a "
            "whole. Tune encoder+head, or the head vit."
        )
    demand(_can_be_cached(tuning), f"{where}: cached", "true", "false, or updates or adapters in blocks that are named")
    demand(1 <= tuning.rank <= MOST_RANK, f"{where}: rank", tuning.rank, f"1 to {MOST_RANK}")
    demand(0 < tuning.ratio <= 1, f"{where}: ratio", tuning.ratio, "above 0, up to 1")
    demand(0 < tuning.encoder_rate < math.inf, f"{where}: learning_rate", tuning.learning_rate, "a number above 0")
    demand(0 <= tuning.weight_decay < math.inf, f"{where}: weight_decay", tuning.weight_decay, "0 or more")


def _can_be_cached(tuning: Tuning) -> bool:
    """Return whether it is said which of the encoder's blocks is the first that learns, if it is to be known."""
    if not tuning.cached:
        return True
    numbers = tuning.blocks or ()
    from_one_end = len({number < 0 for number in numbers}) == 1
    return from_one_end and tuning.in_blocks


def _check_crop(crop: float, takes_parts: bool, where: str) -> None:
    if takes_parts:
        demand(0 < crop <= 1, where, crop, "a share of the inputs' side, above 0 and up to 1")
    else:
        demand(crop == 1, where, crop, "1, since it takes whole inputs")


def known(name: str, names: Container[str], where: str) -> None:
    """Refuse a name that is not among `names`.

    Raises:
        PlanError: with the nearest one.
    """
    if name not in names:
        raise PlanError(f"{where}: {name!r} is not known; {suggest(name, names)}")


def demand(holds: bool, key: str, found: object, expected: str) -> None:
    """Refuse what does not hold.

    Raises:
        PlanError: with the key, what was found and what is expected.
    """
    if not holds:
        raise PlanError(f"{key}: found {found}, expected {expected}. Correct it, or use --replan.")


def _check_preprocessing(settings: Preprocessing, channels: int, where: str) -> None:
    demand(settings.slice_axis in (0, 1, 2), f"{where}: slice_axis", settings.slice_axis, "0, 1 or 2")
    demand(0 < settings.spacing < math.inf, f"{where}: spacing", settings.spacing, "a number above 0 (mm)")
    found = len(settings.normalizations)
    demand(found == channels, f"{where}: normalizations", f"{found} entries", f"{channels}, one a channel")
    for index, entry in enumerate(settings.normalizations):
        _check_normalization(entry, f"{where}: normalizations: [{index}]")


def _check_normalization(entry: Normalization, where: str) -> None:
    known(entry.name, NORMALIZATIONS, f"{where}: name")
    found = f"lower {entry.lower:g}, upper {entry.upper:g}"
    if entry.name == "ct":
        demand(-math.inf < entry.lower < entry.upper < math.inf, where, found, "lower below upper (HU)")
    if entry.name == "percentile":
        demand(0 <= entry.lower < entry.upper <= 100, where, found, "percentages, 0 <= lower < upper <= 100")


def _check_encoding(encoding: Encoding, channels: int, where: str) -> None:
    _check_encoder(encoding.encoder, encoding.input_size, f"{where}: encoder")
    demand(0 <= encoding.overlap <= MOST_OVERLAP, f"{where}: overlap", encoding.overlap, f"0 to {MOST_OVERLAP}")
    for index, source in enumerate(encoding.rgb):
        key = f"{where}: rgb: [{index}]: channel"
        demand(0 <= source.channel < channels, key, source.channel, f"0 to {channels - 1}, the channels of the images")
    for key in ("maximum_views", "slice_budget"):
        demand(getattr(encoding, key) >= 1, f"{where}: {key}", getattr(encoding, key), "1 or more")
    demand(0 <= encoding.rotation <= MOST_ROTATION, f"{where}: rotation", encoding.rotation, f"0 to {MOST_ROTATION:g}")
    strides = f"false for an encoder of stride {ENCODERS.get(encoding.encoder).stride}"
    demand(not encoding.pixels or ENCODERS.get(encoding.encoder).stride >= CELL, f"{where}: pixels", "true", strides)
    cut = encoding.tuned_from
    demand(encoding.tuned or cut is None, f"{where}: tuned_from", cut, "null where the encoder is frozen")
    poses = encoding.poses
    fits = set(poses) <= set(POSES) and len(set(poses)) == len(poses)
    demand(fits, f"{where}: poses", list(poses), f"some of {', '.join(POSES)}, each once")


def _check_encoder(name: str, size: int, where: str) -> None:
    known(name, ENCODERS, where)
    step = ENCODERS.get(name).multiple
    fits = step <= size <= MOST_INPUT and size % step == 0
    place = where.rpartition(": configurations: ")[0] or where.removesuffix(": encoding: encoder")
    demand(fits, f"{place}: encoding: input_size", size, f"a multiple of {step} up to {MOST_INPUT} for {name}")
