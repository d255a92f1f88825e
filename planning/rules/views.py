"""How far views are turned, how many of each slice are encoded, and over which poses predictions are averaged."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from autosam_net.data.encoding import Encoding
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.encoders.catalog import ENCODERS
from planning.machine import MIB, Machine
from planning.rules.counts import round_down, training_share

MOST_VIEWS, MOST_VIEWS_OF_SAME_POSE = 12, 6  # of each slice
ENCODING_SECONDS = 15 * 60
DISK_SHARE = 0.5  # of the free disk
ANY_POSE = 180.0  # degrees that views are turned, nnU-Net's range for square 2D patches
SAME_POSE = 30.0  # where all patients lie alike, which is information then
POSE_SPREAD = 15.0  # degrees: circular standard deviation up to which they do
POSE_PATIENTS = 5  # of fewer patients nobody can tell
TURNS = ("turn_90", "turn_180", "turn_270")


def choose_poses(
    fingerprint: Fingerprint, encoding: Encoding, inputs: int, machine: Machine
) -> tuple[tuple[str, ...], str]:
    """Return the poses that are averaged with the plain one at prediction, and learned from in unlabelled cases.

    Args:
        encoding: with its rotation.
        inputs: encoder inputs of all cases, plain.
    """
    if encoding.rotation == ANY_POSE:
        size = inputs * (1 + len(TURNS)) * embedding_bytes(encoding) / MIB
        figures = f"{size / 1024:.2g} GiB of embeddings for all cases, {machine.disk_mib / 1024:.0f} GiB are free"
        if size <= DISK_SHARE * machine.disk_mib:
            return TURNS, f"heads trained on any pose are averaged over {1 + len(TURNS)} poses ({figures})"
        return (), f"none: four poses would not fit ({figures})"
    if machine.has_gpu and all(case.shape[0] == 1 for case in fingerprint.cases):
        return ("flip_x",), "2D images on a GPU: 1 more encoder pass"
    return (), "none: all patients lie alike, left differs from right, and each pose costs 1 more encoder pass"


def choose_rotation(fingerprint: Fingerprint, axis: int) -> tuple[float, str]:
    """Return by how many degrees augmented views are turned at most: little where all patients lie alike.

    How they lie is seen from the direction in plane between the centroids of two classes, of all pairs the one whose
    direction varies least: concentric classes have none. Its spread is the circular standard deviation over cases
    (Mardia and Jupp, Directional Statistics, 2000).
    """
    spreads = {pair: _pose_spread(fingerprint, pair, axis) for pair in itertools.combinations(fingerprint.presence, 2)}
    measured = {pair: spread for pair, spread in spreads.items() if spread is not None}
    if not measured:
        return ANY_POSE, f"no two classes in {POSE_PATIENTS} or more patients whose directions would show their pose"
    pair = min(measured, key=lambda names: measured[names])
    figures = f"the direction from {pair[0]} to {pair[1]} varies by {measured[pair]:.0f} degrees between cases"
    if measured[pair] <= POSE_SPREAD:
        return SAME_POSE, f"{figures} (standard deviation, at most {POSE_SPREAD:g}): all lie alike"
    return ANY_POSE, f"{figures} (standard deviation, over {POSE_SPREAD:g}): any pose must be expected"


def _pose_spread(fingerprint: Fingerprint, pair: tuple[str, str], axis: int) -> float | None:
    """Return how much the direction between two classes varies (degrees); None with too few patients."""
    cases = [case for case in fingerprint.cases if set(pair) <= set(case.classes)]
    if len({fingerprint.groups[case.name] for case in cases}) < POSE_PATIENTS:
        return None
    first, second = (np.delete([case.classes[name].centroid_mm for case in cases], axis, axis=1) for name in pair)
    steps = second - first
    mean = np.abs(np.exp(1j * np.arctan2(steps[:, 0], steps[:, 1])).mean())
    return math.degrees(math.sqrt(-2.0 * math.log(min(1.0, mean)))) if mean > 0 else math.inf


def embedding_bytes(encoding: Encoding) -> int:
    """Return the bytes of one cached input: its embedding in float16, with its pixels, and its label map."""
    entry = ENCODERS.get(encoding.encoder)
    grid = encoding.input_size // entry.stride
    return 2 * (entry.channels + encoding.folded_channels) * grid**2 + encoding.input_size**2


def choose_views(encoding: Encoding, inputs: int, folds: int, seconds: float, disk_mib: float) -> tuple[Encoding, str]:
    """Return `encoding` with the budget of views.

    Args:
        encoding: with its rotation and poses.
        inputs: encoder inputs of all cases, plain.
        seconds: of one encoder pass.
        disk_mib: free.
    """
    plain = training_share(inputs, folds)
    in_time = round_down(ENCODING_SECONDS / seconds)
    size = embedding_bytes(encoding)
    on_disk = round_down(training_share(int(DISK_SHARE * disk_mib * MIB / size), folds))
    most = MOST_VIEWS if encoding.rotation == ANY_POSE else MOST_VIEWS_OF_SAME_POSE
    planned = replace(encoding, maximum_views=most, slice_budget=max(min(in_time, on_disk), 1))
    views = planned.views_for(plain)
    limit = f"{in_time} passes of {seconds:.2g} s fit {ENCODING_SECONDS // 60} minutes"
    if on_disk < in_time:
        limit += f", {on_disk} embeddings of {size / MIB:.2g} MiB fit half of the free {disk_mib / 1024:.0f} GiB"
    reason = f"{limit}; a fold trains on {plain} inputs, so {views} of at most {most} views of each"
    return planned, reason
