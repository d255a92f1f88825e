"""What the encoder is shown: how intensities are scaled, what fills its channels, what is kept beside its output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autosam_net.data.encoding import CELL, RgbSource
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import Normalization
from autosam_net.encoders.catalog import EncoderEntry
from planning.channel_kinds import channel_kinds
from planning.rules.grid import InPlane

NEIGHBOUR_RATIO = 3.0  # nnU-Net's threshold of anisotropy: beyond it a neighbour shows other tissue
PERCENT = (0.5, 99.5)
THRICE = (RgbSource(0), RgbSource(0), RgbSource(0))


def choose_normalizations(
    fingerprint: Fingerprint, channel_names: Sequence[str], file_ending: str
) -> tuple[tuple[Normalization, ...], str]:
    """Return one normalisation a channel."""
    chosen, reasons = [], []
    kinds = channel_kinds(channel_names, [case.channels for case in fingerprint.cases], file_ending)
    for channel, (kind, why) in enumerate(kinds):
        lower, upper = fingerprint.foreground_percentiles[channel]
        if kind == "ct":
            chosen.append(Normalization("ct", lower, upper))
            how = f"clipped to {lower:.4g} .. {upper:.4g} HU, {PERCENT[0]:g} and {PERCENT[1]:g} % of the foreground"
        elif kind == "rgb":
            chosen.append(Normalization("eight_bit"))
            how = "colours of 8 bits are left as they are, 0-255"
        else:
            chosen.append(Normalization("percentile", *PERCENT))
            how = f"no calibrated scale, so {PERCENT[0]:g} and {PERCENT[1]:g} % of each image become 0 and 1"
        reasons.append(f"channel {channel} ({why}): {how}")
    return tuple(chosen), "; ".join(reasons)


def choose_rgb(
    fingerprint: Fingerprint, channel_names: Sequence[str], sizes: InPlane
) -> tuple[tuple[RgbSource, RgbSource, RgbSource], str]:
    """Return what fills the encoder's three input channels."""
    count = len(channel_names)
    if count == 1:
        return _rgb_of_one(sizes)
    if count == 2:
        return (RgbSource(0), RgbSource(1), RgbSource(0)), "2 channels: the first fills two of the three inputs"
    if count == 3:
        return (RgbSource(0), RgbSource(1), RgbSource(2)), "3 channels, one for each input"
    contrast = [_contrast(fingerprint, channel) for channel in range(count)]
    best = sorted(sorted(range(count), key=lambda channel: -contrast[channel])[:3])
    unused = [name for channel, name in enumerate(channel_names) if channel not in best]
    figures = ", ".join(f"{name} {value:.2f}" for name, value in zip(channel_names, contrast, strict=True))
    return (RgbSource(best[0]), RgbSource(best[1]), RgbSource(best[2])), (
        f"the three of {count} channels in which the foreground stands out most (distance of its mean in standard "
        f"deviations: {figures}); unused: {', '.join(unused)}"
    )


def choose_pixels(entry: EncoderEntry) -> tuple[bool, str]:
    """Return whether the slices' own pixels are kept with their embeddings."""
    if entry.stride < CELL:
        return False, f"not kept with the embeddings, whose pixels cover no more than {entry.stride} of the slice's"
    return True, (
        f"kept with the embeddings, of which each pixel covers {entry.stride} x {entry.stride} of the slice's: heads "
        "draw boundaries with them"
    )


def _rgb_of_one(sizes: InPlane) -> tuple[tuple[RgbSource, RgbSource, RgbSource], str]:
    if sizes.slices <= 1:
        return THRICE, "1 channel, 1 slice: the slice three times"
    ratio = sizes.between / sizes.spacing
    figures = f"slices {sizes.between:.3g} mm apart, {ratio:.1f} times the in-plane {sizes.spacing:.3g} mm"
    if ratio <= NEIGHBOUR_RATIO:
        neighbours = (RgbSource(0, -1), RgbSource(0, 0), RgbSource(0, 1))
        return neighbours, f"the slice and its two neighbours: {figures} (at most {NEIGHBOUR_RATIO:g})"
    return THRICE, f"the slice three times: {figures}, too far (over {NEIGHBOUR_RATIO:g}) to show the same tissue"


def _contrast(fingerprint: Fingerprint, channel: int) -> float:
    distances = [
        abs(case.channels[channel].foreground_mean - case.channels[channel].mean) / case.channels[channel].std
        for case in fingerprint.cases
        if case.channels[channel].foreground_quantiles and case.channels[channel].std > 0
    ]
    return float(np.median(distances)) if distances else 0.0
