"""The planner's rules: each takes figures and returns a decision with one sentence that names the figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autosam_net.data.fingerprint import CaseFingerprint, Fingerprint
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import (
    CELL,
    FOREGROUND,
    REFERENCE_INPUTS,
    REFERENCE_PATIENTS,
    TUNED_BATCH,
    TUNED_PATIENTS,
    Configuration,
    Encoding,
    Normalization,
    Preprocessing,
    RgbSource,
)
from autosam_net.data.splits import FOLDS
from autosam_net.encoders.catalog import ENCODERS, EncoderEntry
from autosam_net.errors import UsageError
from autosam_net.preprocessing.geometry import plane_shape
from autosam_net.preprocessing.slices import count_inputs
from planning.channel_kinds import channel_kinds
from planning.machine import MIB, SLOW_PASS, HeadRecipe, Machine, TunedProbe

CLEARLY_LARGER = 1.5  # a spacing this much larger than both others marks the direction of acquisition
SIZE_STEP = 64  # pixels; window attention wants multiples of it
SMALLEST_SIZE = 128
LARGE_PIXELS = 64  # structures larger than this have an inside that a few convolutions cannot tell from other tissue
CPU_SIZE = 512  # an encoder for 1024 px costs a CPU four times less at half the side, attention even more
CELL_PIXELS = 2.0  # an embedding cell shall not be finer than two raw pixels: nothing more can be seen there
SMALL_PIXELS = 12.0  # structures with fewer pixels across vanish in the embedding
OVERLAP = 0.25
NEIGHBOUR_RATIO = 3.0  # nnU-Net's threshold of anisotropy: beyond it a neighbour shows other tissue
PERCENT = (0.5, 99.5)
CPU_ENCODER, GPU_ENCODER = "lite_medsam", "vit_b"
GPU_ENCODER_MIB = 6 * 1024
MOST_EPOCHS = 2.5  # times a head's own number
VIEWS_OF_SAME_POSE = 1, 6  # least and most
VIEWS_OF_ANY_POSE = 2, 12  # predictions are averaged over poses, of which the plain view shows one
ENCODING_SECONDS = 15 * 60
DISK_SHARE = 0.5  # of the free disk
ANY_POSE = 180.0  # degrees that views are turned, nnU-Net's range for square 2D patches
SAME_POSE = 30.0  # where all patients lie alike, which is information then
POSE_SPREAD = 15.0  # degrees: circular standard deviation up to which they do
POSE_PATIENTS = 5  # of fewer patients nobody can tell
ONE_PIECE = 0.95  # a class whose largest component holds this share everywhere is one piece; specks are slips
ONE_PIECE_CASES = 2
TURNS = ("turn_90", "turn_180", "turn_270")
TUNING = "encoder+head:lora"  # of the strategies with both parts the one with the fewest parameters, merged afterwards
TUNING_STEPS = 1000  # with the published warm-up of 200
TUNING_SECONDS = 60 * 60  # of a fold
THRICE = (RgbSource(0), RgbSource(0), RgbSource(0))


def choose_slice_axis(fingerprint: Fingerprint) -> tuple[int, str]:
    """Return the raw axis (0 Z, 1 Y, 2 X) across which slices are taken."""
    spacing = np.median([case.spacing for case in fingerprint.cases], axis=0)
    voxels = np.median([case.cropped_shape for case in fingerprint.cases], axis=0)
    if all(case.shape[0] == 1 for case in fingerprint.cases):
        return 0, f"the images are 2D (1 slice of {voxels[1]:g} x {voxels[2]:g} pixels, median)"
    widest = int(np.argmax(spacing))
    others = np.delete(spacing, widest)
    if spacing[widest] > CLEARLY_LARGER * others.max():
        return widest, (
            f"median spacing {spacing[widest]:.3g} mm along {'ZYX'[widest]}, more than {CLEARLY_LARGER:g} times "
            f"the {others.max():.3g} mm of the others: the direction of acquisition"
        )
    fewest = int(np.argmin(voxels))
    return fewest, (
        f"no axis has a clearly larger spacing ({_list(spacing)} mm along Z, Y, X, medians), so the axis with the "
        f"fewest voxels ({voxels[fewest]:g}), the cheapest to encode"
    )


@dataclass(frozen=True)
class InPlane:
    """Medians over cases that sizes are planned from.

    Attributes:
        extent: 95th percentile of the larger side of the cropped plane, mm.
        spacing: geometric mean of the raw in-plane spacings, mm.
        between: spacing between slices, mm.
        slices: number of slices.
        unit: "mm", or "px" where the files state no spacing.
    """

    extent: float
    spacing: float
    between: float
    slices: float
    unit: str


def in_plane(fingerprint: Fingerprint, axis: int) -> InPlane:
    """Return the sizes of the planes across `axis`."""
    plane = [other for other in range(3) if other != axis]
    cases = fingerprint.cases
    extents = [max(case.cropped_shape[other] * case.spacing[other] for other in plane) for case in cases]
    spacings = [math.sqrt(case.spacing[plane[0]] * case.spacing[plane[1]]) for case in cases]
    return InPlane(
        extent=float(np.percentile(np.sort(extents), 95)),
        spacing=float(np.median(spacings)),
        between=float(np.median([case.spacing[axis] for case in cases])),
        slices=float(np.median([case.cropped_shape[axis] for case in cases])),
        unit="mm" if any(case.calibrated for case in cases) else "px",
    )


def choose_encoder(machine: Machine, wanted: str | None) -> tuple[str, str]:
    """Return the encoder's name.

    Raises:
        UsageError: no encoder is called `wanted`, or it is none that a plan can be made for.
    """
    if wanted is not None:
        entry = find_encoder(wanted)
        return wanted, f"asked for by --encoder ({entry.parameters:g} million parameters)"
    light, strong = ENCODERS.get(CPU_ENCODER), ENCODERS.get(GPU_ENCODER)
    assert strong.weights is not None
    cost = f"{light.parameters:g} million parameters, {light.gflop:g} GFLOP a slice"
    if not machine.has_gpu:
        return (
            CPU_ENCODER,
            f"no GPU ({machine.cores} cores): the lightest, {cost} against {strong.gflop:g} of {GPU_ENCODER}",
        )
    if GPU_ENCODER not in machine.local_weights:
        return CPU_ENCODER, (
            f"{cost}; the weights of {GPU_ENCODER} ({strong.weights.size / 1e6:.0f} MB) are not on this machine, "
            f"--encoder {GPU_ENCODER} would download them"
        )
    if machine.gpu_memory_mib < GPU_ENCODER_MIB:
        return (
            CPU_ENCODER,
            f"the GPU's {machine.gpu_memory_mib:.0f} MiB are under the {GPU_ENCODER_MIB} that {GPU_ENCODER} needs",
        )
    return GPU_ENCODER, (
        f"a GPU of {machine.gpu_memory_mib:.0f} MiB and its weights are here: {strong.parameters:g} million parameters"
    )


def find_encoder(name: str) -> EncoderEntry:
    """Return the entry of an encoder that a plan can be made for.

    Raises:
        UsageError: no encoder is called so, or it has no weights and belongs to single configurations.
    """
    entry = ENCODERS.get(name)
    if entry.weights is None:
        raise UsageError(f"--encoder {name}: {entry.description}; configurations such as unet take it by themselves.")
    return entry


def finest_spacing(raw: float, entry: EncoderEntry) -> float:
    """Return the spacing at which one embedding cell covers two raw pixels (half the raw spacing at a stride of 4)."""
    return raw * CELL_PIXELS / entry.stride


def choose_input_size(sizes: InPlane, entry: EncoderEntry, machine: Machine) -> tuple[int, str]:
    """Return the pixels of the encoder's square input: the smallest that shows a slice as finely as is of use."""
    largest = entry.input_size if machine.has_gpu else min(entry.input_size, CPU_SIZE)
    step = math.lcm(SIZE_STEP, entry.multiple) if entry.input_size >= SMALLEST_SIZE else entry.multiple
    finest = finest_spacing(sizes.spacing, entry)
    candidates = range(step, largest + 1, step)
    for size in candidates:
        if size >= SMALLEST_SIZE and size * finest >= sizes.extent:
            return size, (
                f"the smallest multiple of {step} that holds {sizes.extent:.4g} {sizes.unit} (95th percentile of the "
                f"larger side) with slices enlarged {entry.stride / CELL_PIXELS:g}-fold"
            )
    limit = "its own size" if largest == entry.input_size else f"at most {CPU_SIZE} without a GPU"
    return largest, (
        f"slices of {sizes.extent:.4g} {sizes.unit} (95th percentile of the larger side) at {sizes.spacing:.3g} "
        f"{sizes.unit} a pixel fill the encoder's input: {largest} px, {limit}"
    )


@dataclass(frozen=True)
class Resolution:
    """Target spacing, and the reasons for it and for tiles or none."""

    spacing: float
    spacing_reason: str
    tiling_reason: str


def choose_resolution(fingerprint: Fingerprint, axis: int, size: int, entry: EncoderEntry) -> Resolution:
    """Return the in-plane target spacing: a slice fills one input, unless the smallest class then vanishes."""
    sizes = in_plane(fingerprint, axis)
    unit, finest = sizes.unit, finest_spacing(sizes.spacing, entry)
    whole = _round_up(max(sizes.extent / size, finest))
    reason = (
        f"{sizes.extent:.4g} {unit} on {size} px, not finer than {finest:.3g} {unit} "
        f"(the raw {sizes.spacing:.3g} {unit} enlarged {entry.stride / CELL_PIXELS:g}-fold)"
    )
    tiling = (
        f"a slice fits one input; the few larger ones (5 % of cases) are cut into tiles that overlap by {OVERLAP:.0%}"
    )
    smallest = smallest_extent(fingerprint, axis)
    if smallest is None or smallest / whole >= SMALL_PIXELS:
        across = (
            "no class is present" if smallest is None else f"the smallest class has {smallest / whole:.0f} px across"
        )
        return Resolution(whole, f"{reason}; {across}", tiling)
    finer = _round_up(max(smallest / SMALL_PIXELS, finest))
    if finer >= whole:
        return Resolution(whole, f"{reason}; the smallest class has only {smallest / whole:.1f} px across", tiling)
    return Resolution(
        finer,
        f"the smallest class is {smallest:.3g} {unit} across, only {smallest / whole:.1f} px at {whole:g} {unit} where "
        f"a slice fits one input; {smallest / finer:.0f} px at {finer:g} {unit}",
        f"slices of {sizes.extent / finer:.0f} px are cut into inputs of {size} px that overlap by {OVERLAP:.0%}, "
        f"for the sake of a class of {smallest:.3g} {unit}",
    )


def smallest_extent(fingerprint: Fingerprint, axis: int) -> float | None:
    """Return how far the smallest class reaches in plane (mm): the 10th percentile over classes; None without any."""
    extents = class_extents(fingerprint, axis)
    return float(np.percentile(extents, 10)) if extents else None


def class_extents(fingerprint: Fingerprint, axis: int) -> list[float]:
    """Return how far each class reaches in plane (mm), sorted.

    Of each class the median over cases of its typical component, the geometric mean of both sides.
    """
    plane = [other for other in range(3) if other != axis]
    extents: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for name, stats in case.classes.items():
            sides = [stats.component_extent_mm[other] for other in plane]
            extents.setdefault(name, []).append(math.sqrt(sides[0] * sides[1]))
    return sorted(float(np.median(values)) for values in extents.values())


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


def choose_folds(groups: Mapping[str, str], given: int | None) -> tuple[int, str]:
    """Return the number of folds; `given` is that of splits brought with the data."""
    patients = len(set(groups.values()))
    if given is not None:
        return given, f"as in the splits_final.json that came with the data ({len(groups)} cases, {patients} groups)"
    kept = f"{len(groups)} cases of {patients} groups (patients); the cases of a group stay together"
    if patients < FOLDS:
        return patients, f"{kept}; fewer groups than {FOLDS}, so each is held out once"
    return FOLDS, kept


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


def choose_keep_largest(fingerprint: Fingerprint, labels: LabelSet) -> tuple[tuple[str, ...], str]:
    """Return the classes of which predictions keep only the largest connected component.

    Before them `FOREGROUND`, where all classes together are one piece: of two pieces of a class the one that hangs
    together with the others is right, which need not be the larger one. (nnU-Net tries it in this order too.)
    """
    if labels.has_regions:
        return (), "no class: regions overlap, so that every component is kept"
    shares: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        pieces = {FOREGROUND: case.foreground} if len(case.classes) > 1 else {}
        for name, stats in {**pieces, **case.classes}.items():
            shares.setdefault(name, []).append(stats.largest_component_mm3 / stats.volume_mm3)
    least = {name: min(values) for name, values in shares.items()}
    figures = ", ".join(f"{name} {share:.1%} ({len(shares[name])} cases)" for name, share in least.items())
    kept = tuple(name for name, share in least.items() if share >= ONE_PIECE and len(shares[name]) >= ONE_PIECE_CASES)
    return kept, (
        f"what has its largest component hold at least {ONE_PIECE:.0%} in every one of {ONE_PIECE_CASES} or more "
        f"cases is taken to be one piece: {figures}"
    )


def count_case_inputs(fingerprint: Fingerprint, preprocessing: Preprocessing, encoding: Encoding) -> dict[str, int]:
    """Return case -> number of encoder inputs (slices times tiles)."""
    return {case.name: count_inputs(planned_shape(case, preprocessing), encoding) for case in fingerprint.cases}


def planned_shape(case: CaseFingerprint, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return `(Z, Y, X)` of the case after preprocessing."""
    axis = preprocessing.slice_axis
    plane = [other for other in range(3) if other != axis]
    pixels = (case.cropped_shape[plane[0]], case.cropped_shape[plane[1]])
    height, width = plane_shape(pixels, (case.spacing[plane[0]], case.spacing[plane[1]]), preprocessing.spacing)
    return case.cropped_shape[axis], height, width


def embedding_bytes(encoding: Encoding) -> int:
    """Return the bytes of one cached input: its embedding in float16, with its pixels, and its label map."""
    entry = ENCODERS.get(encoding.encoder)
    grid = encoding.input_size // entry.stride
    return 2 * (entry.channels + encoding.folded_channels) * grid**2 + encoding.input_size**2


def choose_views(encoding: Encoding, inputs: int, folds: int, seconds: float, disk_mib: float) -> tuple[Encoding, str]:
    """Return `encoding` with the budget of views.

    Args:
        inputs: encoder inputs of all cases, plain.
        seconds: of one encoder pass.
        disk_mib: free.
    """
    plain = training_share(inputs, folds)
    in_time = _round_down(ENCODING_SECONDS / seconds)
    size = embedding_bytes(encoding)
    on_disk = _round_down(training_share(int(DISK_SHARE * disk_mib * MIB / size), folds))
    least, most = VIEWS_OF_ANY_POSE if encoding.rotation == ANY_POSE else VIEWS_OF_SAME_POSE
    budget = max(least * plain, min(in_time, on_disk), 1)
    planned = replace(encoding, maximum_views=most, slice_budget=budget)
    views = planned.views_for(plain)
    limit = f"{in_time} passes of {seconds:.2g} s fit {ENCODING_SECONDS // 60} minutes"
    if on_disk < in_time:
        limit += f", {on_disk} embeddings of {size / MIB:.2g} MiB fit half of the free {disk_mib / 1024:.0f} GiB"
    reason = f"{limit}; a fold trains on {plain} inputs, so {views} of at most {most} views of each"
    return planned, reason


def training_share(count: int, folds: int) -> int:
    """Return how many of `count` are in the training part of one of `folds` folds."""
    return count * (folds - 1) // folds if folds > 1 else count


def choose_head(name: str, recipe: HeadRecipe, inputs: int, patients: int, largest: float) -> tuple[Configuration, str]:
    """Return how a head is trained on `inputs` encoder inputs of `patients`: its own recipe, longer where more.

    Args:
        largest: pixels across the largest class; a head that has a setting `context` gets it above `LARGE_PIXELS`.
    """
    settings, context, crop, most = dict(recipe.settings), "", recipe.crop, recipe.batch_size
    if "context" in settings and largest > LARGE_PIXELS:
        settings["context"], crop = 1.0, 1.0
        most = max(1, round(most * recipe.crop))  # a whole input takes as long as several parts, and tells more
        context = (
            f"; context, and whole inputs, since the largest class has {largest:.0f} px across (over {LARGE_PIXELS})"
        )
    batch_size = max(1, min(most, inputs))
    configuration = Configuration(
        head=name,
        settings=settings,
        batch_size=batch_size,
        epochs=recipe.epochs,
        maximum_epochs=round(recipe.epochs * MOST_EPOCHS),
        iterations=recipe.iterations,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        encoder=recipe.encoder,
        crop=crop,
        prompts=recipe.prompts,
    )
    own = "" if recipe.encoder is None else f"; {ENCODERS.get(recipe.encoder).description}"
    own += "" if recipe.prompts is None else f"; needs {recipe.prompts.in_words} in every slice"
    epochs = configuration.epochs_for(inputs, patients)
    return configuration, (
        f"the head's own recipe of {recipe.epochs} epochs of {recipe.iterations} batches of {batch_size}, learning "
        f"rate {recipe.learning_rate:g}; {epochs} epochs for {inputs} training inputs of {patients} patients (they "
        f"grow with the square root over {REFERENCE_INPUTS} inputs or {REFERENCE_PATIENTS} patients, at most "
        f"{MOST_EPOCHS:g}-fold){context}{own}"
    )


def choose_strategy(machine: Machine, seconds: float, tuned: TunedProbe | None, patients: int) -> tuple[str, str]:
    """Return which parts should learn, of `STRATEGIES`.

    Where time and memory allow it, parameter-efficient tuning of encoder and decoder: of 18 ways the best in 17 data
    sets (Gu et al., arXiv 2404.09957), from a trained head on, since steps through the encoder are dear.

    Args:
        seconds: of one input's way through the frozen encoder.
        tuned: what a step through the encoder costs, if that was measured.
        patients: that a fold trains on.
    """
    if tuned is None and seconds > SLOW_PASS:
        return "head", (
            f"the encoder stays frozen: one input takes {seconds:.2g} s on {machine.device}, over {SLOW_PASS:g}, so "
            "that too few steps through it would fit an hour"
        )
    if tuned is None:
        return "head", (
            f"the encoder stays frozen, at {seconds:.2g} s for one input on {machine.device}: it has no blocks to "
            "tune, or there is no memory for it"
        )
    step, need = TUNED_BATCH * tuned.seconds_per_input, tuned.memory_mib[TUNING]
    steps = _round_down(TUNING_SECONDS / step)
    figures = f"a step of {TUNED_BATCH} inputs through the encoder takes {step:.2g} s on {machine.device}"
    if steps < TUNING_STEPS:
        return "head", (
            f"the encoder stays frozen: {figures}, so that {steps} fit an hour, under the {TUNING_STEPS} that tuning "
            "wants; a head learns on cached embeddings in minutes"
        )
    memory = machine.gpu_memory_mib or machine.memory_mib
    if 0 < memory < need:
        return "head", f"the encoder stays frozen: tuning it takes {need:.0f} MiB of memory, {memory:.0f} are there"
    if patients < TUNED_PATIENTS:
        return "head", (
            f"the encoder stays frozen: a fold trains on {patients} patients, under the {TUNED_PATIENTS} of which one "
            "could be held out to see whether tuning helps"
        )
    return TUNING, (
        f"{figures}, so that {steps} fit an hour, and a fold trains on {patients} patients: low-rank updates of "
        f"encoder and head, from the trained head on (--tune {TUNING} --from-head)"
    )


def explain_precision(machine: Machine) -> str:
    """Return what the encoder will compute in; each machine decides it for itself."""
    if machine.bfloat16:
        return (
            f"bfloat16: {machine.device} has instructions for it, twice as fast as float32; 16 bits are stored anyway"
        )
    return f"float32 (32 bits): {machine.device} has no instructions for bfloat16"


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


def _round_up(value: float) -> float:
    """Return `value` with four digits, never less: a slice that just fits must not spill over its input."""
    power = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.ceil(round(value / power, 6)) * power:.6g}")


def _round_down(value: float) -> int:
    """Return a count with two digits, so that a noisy measurement gives the same plan again."""
    if value < 1:
        return 0
    power = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return int(value // power * power)


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
