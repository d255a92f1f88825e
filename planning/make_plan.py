"""Turn what was measured into a plan: a decision, its value and its reason, for every rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.encoding import Encoding
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import PLAN_VERSION, Plan, Preprocessing
from autosam_net.data.splits import detect_group_pattern, group_cases
from autosam_net.encoders.catalog import ENCODERS
from planning.estimate_costs import estimate_costs, rounded
from planning.machine import Machine, Probe
from planning.rules.counts import training_share
from planning.rules.encoder import choose_encoder, explain_precision
from planning.rules.grid import (
    OVERLAP,
    choose_input_size,
    choose_resolution,
    choose_slice_axis,
    class_extents,
    count_case_inputs,
    in_plane,
)
from planning.rules.inputs import choose_normalizations, choose_pixels, choose_rgb
from planning.rules.training import choose_folds, choose_head, choose_keep_largest, choose_strategy
from planning.rules.views import choose_poses, choose_rotation, choose_views


def choose_inputs(
    dataset: DatasetSpec, fingerprint: Fingerprint, machine: Machine, encoder: str | None, weights: Path | None
) -> tuple[Preprocessing, Encoding, dict[str, str]]:
    """Return all that leads from the raw grid to the encoder's input, and the reasons.

    The budget of views is still open (1): it hangs on the speed of the encoder at this input size.

    Raises:
        UsageError: no encoder is called so.
    """
    name, encoder_reason = choose_encoder(machine, encoder)
    entry = ENCODERS.get(name)
    axis, axis_reason = choose_slice_axis(fingerprint)
    sizes = in_plane(fingerprint, axis)
    size, size_reason = choose_input_size(sizes, entry, machine)
    resolution = choose_resolution(fingerprint, axis, size, entry)
    channels = dataset.channel_names
    normalizations, normalization_reason = choose_normalizations(fingerprint, channels, dataset.file_ending)
    rgb, rgb_reason = choose_rgb(fingerprint, channels, sizes)
    rotation, rotation_reason = choose_rotation(fingerprint, axis)
    file = None if weights is None else str(weights.absolute())
    pixels, pixels_reason = choose_pixels(entry)
    encoding = Encoding(
        name, file, size, OVERLAP, rgb, maximum_views=1, slice_budget=1, rotation=rotation, pixels=pixels
    )
    reasons = {
        "slice axis": axis_reason,
        "encoder": encoder_reason + ("" if weights is None else f", with the weights of {weights.name}"),
        "input size": size_reason,
        "spacing": resolution.spacing_reason,
        "tiles": resolution.tiling_reason,
        "normalisation": normalization_reason,
        "input channels": rgb_reason,
        "pixels": pixels_reason,
        "rotation": rotation_reason,
        "precision": explain_precision(machine),
    }
    return Preprocessing(axis, resolution.spacing, normalizations), encoding, reasons


def make_plan(
    dataset: DatasetSpec,
    fingerprint: Fingerprint,
    probe: Probe,
    encoder: str | None = None,
    weights: Path | None = None,
    given_folds: int | None = None,
) -> Plan:
    """Return the plan; the same fingerprint and probe give the same plan, whatever the order of cases.

    Args:
        encoder: asked for by the user; None for the planner's choice.
        weights: a file that replaces the encoder's published weights.
        given_folds: number of folds of a splits_final.json that came with the data.

    Raises:
        UsageError: no encoder is called so.
    """
    preprocessing, encoding, reasons = choose_inputs(dataset, fingerprint, probe.machine, encoder, weights)
    folds, reasons["folds"] = choose_folds(fingerprint.groups, given_folds)
    inputs = sum(count_case_inputs(fingerprint, preprocessing, encoding).values())
    seconds = rounded(probe.seconds_per_input)
    poses, reasons["poses"] = choose_poses(fingerprint, encoding, inputs, probe.machine)
    encoding = replace(encoding, poses=poses)
    encoding, reasons["views"] = choose_views(encoding, inputs, folds, seconds, probe.machine.disk_mib)
    trained = training_share(inputs, folds)
    patients = training_share(len(set(fingerprint.groups.values())), folds)
    largest = max(class_extents(fingerprint, preprocessing.slice_axis), default=0.0) / preprocessing.spacing
    configurations = {}
    for head, recipe in probe.recipes.items():
        configurations[head], reasons[f"head {head}"] = choose_head(head, recipe, trained, patients, largest)
    strategy, reasons["strategy"] = choose_strategy(probe.machine, probe.seconds_per_input, probe.tuned, patients)
    keep_largest, reasons["largest component"] = choose_keep_largest(fingerprint, dataset.labels)
    plan = Plan(
        version=PLAN_VERSION,
        dataset=dataset.name,
        channel_names=dataset.channel_names,
        labels=dataset.labels.values,
        regions_class_order=dataset.labels.regions_class_order,
        file_ending=dataset.file_ending,
        preprocessing=preprocessing,
        encoding=encoding,
        configurations=configurations,
        keep_largest=keep_largest,
        folds=folds,
        group_pattern=_pattern_of(dataset, fingerprint.groups),
        reasons=reasons,
        estimates={},
        strategy=strategy,
    )
    return replace(plan, estimates=estimate_costs(plan, fingerprint, probe))


def _pattern_of(dataset: DatasetSpec, groups: Mapping[str, str]) -> str | None:
    """Return the pattern that makes these groups of the cases' names; None where a table did, or nothing."""
    for pattern in (dataset.group_pattern, detect_group_pattern(sorted(groups))):
        if pattern is not None and group_cases(sorted(groups), pattern) == dict(groups):
            return pattern
    return None
