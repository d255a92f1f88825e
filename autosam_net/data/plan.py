"""What was decided for a data set, and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from autosam_net.data.labels import LabelSet, LabelValue
from autosam_net.data.prompts import PROMPT_KINDS, PromptKind, PromptOptions
from autosam_net.errors import PlanError, UsageError
from autosam_net.files import sha256_of_text
from autosam_net.jsonio import SPARSE, canonical, from_json, read_json
from autosam_net.registry import suggest

log = logging.getLogger(__name__)

PLAN_VERSION = 4
FOREGROUND = "foreground"  # all classes together
PLAIN = "plain"
NO_ENCODER = "image"  # in the catalogue: what stands for the inputs themselves
CELL = 4  # folded pixels along each side of an embedding pixel; where an encoder has more, they are averaged
POSES = ("flip_y", "flip_x", "turn_90", "turn_180", "turn_270")  # beside the plain one
VIEWS_OF_POSES = 2  # of each slice at least, where predictions are averaged over poses: the plain one shows one pose
REFERENCE_INPUTS = 40  # training inputs up to which a head's own number of epochs is enough
REFERENCE_PATIENTS = 2  # and patients: one slice each of many patients asks for more than many slices of one
STRATEGIES = ("head", "head:lora", "head:adapter", "encoder+head:full", "encoder+head:lora", "encoder+head:adapter")
"""What can be tuned and how; `head` is the head alone, all of it, over the frozen encoder."""
TUNED_BATCH = 4  # inputs, as published; passes through an encoder that learns take memory
TUNED_PATIENTS = 5  # with fewer none can be held out to see whether it helps to tune the encoder of a trained head
TUNED_ITERATIONS = 10  # of an epoch: such steps take seconds on a CPU, and time limits are looked at between epochs


@dataclass(frozen=True)
class Normalization:
    """How one channel's intensities become [0, 1].

    Attributes:
        name: in the registry of normalisations (`ct`, `percentile`, `eight_bit`, `min_max`).
        lower, upper: the two numbers it needs: intensities for `ct`, percentages for `percentile`.
    """

    name: str
    lower: float = 0.0
    upper: float = 0.0


@dataclass(frozen=True)
class Preprocessing:
    """From the raw grid to normalised slices.

    Attributes:
        slice_axis: of the raw array (Z, Y, X), the axis across which slices are taken; it becomes the first.
        spacing: target spacing in mm of both in-plane axes; across slices nothing is resampled.
        normalizations: one a channel.
    """

    slice_axis: int
    spacing: float
    normalizations: tuple[Normalization, ...]


@dataclass(frozen=True)
class RgbSource:
    """What fills one of the encoder's three input channels: an image channel of the slice `offset` slices away."""

    channel: int
    offset: int = 0


@dataclass(frozen=True)
class Encoding:
    """From slices to embeddings.

    Attributes:
        encoder: in the catalogue of encoders.
        weights: a file that replaces the published weights, or null.
        input_size: pixels of the square input; larger slices are tiled.
        overlap: fraction of a tile shared with its neighbour.
        rgb: the sources of the three input channels.
        maximum_views: upper bound of views (one plain, the others augmented) of each training slice.
        slice_budget: encoder passes that the training set of one fold may cost, all views counted; with few slices
            there are more views of each, with many slices fewer (but always the plain one, and a turned one where
            predictions are averaged over poses).
        rotation: degrees by which augmented views are turned at most, either way.
        poses: of `POSES`, those that slices are put in beside the plain one, for test-time augmentation and for
            learning from unlabelled cases; each costs one more encoder pass.
        pixels: the slice's own pixels go along with its embedding, for heads that draw boundaries with them.
        tuned: the encoder learns with the head: every head brings its own, and takes the inputs themselves.
        tuned_from: attention block from which on it does; what lies below stays frozen, and heads take its features.
    """

    encoder: str
    weights: str | None
    input_size: int
    overlap: float
    rgb: tuple[RgbSource, RgbSource, RgbSource]
    maximum_views: int
    slice_budget: int
    rotation: float
    poses: tuple[str, ...] = ()
    pixels: bool = False
    tuned: bool = field(default=False, metadata=SPARSE)
    tuned_from: int | None = field(default=None, metadata=SPARSE)

    @property
    def source(self) -> Encoding:
        """Return what heads are given: embeddings, or what the encoders of their own take: inputs, or features."""
        if self.tuned and self.tuned_from is None:
            return replace(self, encoder=NO_ENCODER, weights=None, pixels=False, tuned=False)
        return replace(self, tuned=False)

    @property
    def weights_file(self) -> Path | None:
        """Return the file that replaces the published weights, if any."""
        return None if self.weights is None else Path(self.weights)

    @property
    def distinct_channels(self) -> list[int]:
        """Return those of the three input channels that differ from one another."""
        return [index for index, source in enumerate(self.rgb) if source not in self.rgb[:index]]

    @property
    def pixel_channels(self) -> int:
        """Return how many of them go along with an embedding, pixel by pixel."""
        return len(self.distinct_channels) if self.pixels else 0

    @property
    def folded_channels(self) -> int:
        """Return how many channels these pixels take, folded to the embedding's resolution."""
        return self.pixel_channels * CELL**2

    @property
    def all_poses(self) -> tuple[str, ...]:
        """Return the plain pose and the others."""
        return (PLAIN, *self.poses)

    @property
    def least_views(self) -> int:
        """Return how many views of each slice a head needs to know the poses that its predictions are averaged over."""
        return min(self.maximum_views, VIEWS_OF_POSES if self.poses else 1)

    def views_for(self, slices: int) -> int:
        """Return the number of views of each of `slices` training slices."""
        return max(self.least_views, min(self.maximum_views, self.slice_budget // max(slices, 1)))


@dataclass(frozen=True)
class Tuning:
    """Which pretrained parts learn, and how (Gu et al., arXiv 2404.09957); what is not pretrained always learns.

    Attributes:
        part: the mask decoder that a head starts from, or the encoder as well.
        method: all weights, low-rank updates of queries and values (LoRA), or bottleneck adapters.
        rank: of a low-rank update.
        ratio: of an adapter's inner width to its outer one.
        blocks: numbers of the encoder's attention blocks that get updates or adapters, negative ones counted from the
            end; if null, all get updates, and the first two and the last two get adapters, as published.
        cached: nothing below the first of `blocks` is recomputed: the features there are cached, as embeddings are.
        learning_rate: highest value for the encoder; if null, 1e-3 as published, and 1e-4 for all of its weights.
        weight_decay: for the encoder.
        recompute: save memory by computing the encoder's blocks a second time for the gradient.
    """

    part: Literal["head", "encoder+head"]
    method: Literal["full", "lora", "adapter"]
    rank: int = 4
    ratio: float = 0.25
    blocks: tuple[int, ...] | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.1
    recompute: bool = False
    cached: bool = field(default=False, metadata=SPARSE)

    @property
    def of_encoder(self) -> bool:
        """Return whether the encoder learns."""
        return self.part == "encoder+head"

    @property
    def in_blocks(self) -> bool:
        """Return whether some of the encoder's blocks get updates or adapters."""
        return self.of_encoder and self.method != "full"

    @property
    def first_block(self) -> int | None:
        """Return the attention block below which all is cached, if anything is."""
        return min(self.blocks) if self.cached and self.blocks else None

    @property
    def encoder_rate(self) -> float:
        """Return the highest learning rate for the encoder."""
        published = 1e-4 if self.method == "full" else 1e-3
        return published if self.learning_rate is None else self.learning_rate


def parse_tuning(text: str) -> Tuning | None:
    """Return the tuning that one of `STRATEGIES` means, None for the head alone.

    Raises:
        UsageError: there is no such strategy.
    """
    if text not in STRATEGIES:
        raise UsageError(f"--tune {text}: {suggest(text, STRATEGIES)}")
    part, _, method = text.partition(":")
    tuning: Tuning | None = from_json(Tuning, {"part": part, "method": method}, "--tune") if method else None
    return tuning


def parse_prompts(text: str | None) -> PromptKind | None:
    """Return the kind of prompt that `--prompts` asks for, if it does.

    Raises:
        UsageError: there is no such kind.
    """
    if text is not None and text not in PROMPT_KINDS:
        raise UsageError(f"--prompts {text}: {suggest(text, PROMPT_KINDS)}")
    return cast("PromptKind | None", text)


@dataclass(frozen=True)
class Configuration:
    """How one head is trained.

    Attributes:
        head: in the registry of heads.
        settings: the head's own settings.
        epochs: for up to 100 training inputs and 5 patients, each of `iterations` batches of `batch_size` inputs.
        maximum_epochs: more inputs or patients are trained on longer, with the square root of their number, up to this.
        learning_rate: highest value of the one-cycle schedule of AdamW.
        encoder: replaces the plan's; `image` for networks trained from scratch.
        crop: of each drawn input a random part is shown, this share of its side; 1 for the whole.
        tuning: of pretrained parts; if null, the head learns and the encoder is frozen.
        prompts: of a head that needs them, how they are drawn from references.
    """

    head: str
    settings: Mapping[str, float]
    batch_size: int
    epochs: int
    maximum_epochs: int
    iterations: int
    learning_rate: float
    weight_decay: float
    encoder: str | None = None
    crop: float = 1.0
    tuning: Tuning | None = field(default=None, metadata=SPARSE)
    prompts: PromptOptions | None = field(default=None, metadata=SPARSE)

    def with_prompts(self, kind: PromptKind) -> Configuration:
        """Return the same with another kind of prompt.

        Raises:
            UsageError: the head takes no prompts.
        """
        if self.prompts is None:
            raise UsageError(f"--prompts {kind}: the head {self.head} takes no prompts. Leave it out.")
        return replace(self, prompts=self.prompts.of_kind(kind))

    def with_tuning(self, tuning: Tuning) -> Configuration:
        """Return the same with a tuning; where the encoder learns, in fewer, whole inputs and more, shorter epochs."""
        if not tuning.of_encoder:
            return replace(self, tuning=tuning)
        longer = self.iterations / TUNED_ITERATIONS
        return replace(
            self,
            tuning=tuning,
            batch_size=min(self.batch_size, TUNED_BATCH),
            crop=1.0,
            iterations=TUNED_ITERATIONS,
            epochs=round(self.epochs * longer),
            maximum_epochs=round(self.maximum_epochs * longer),
        )

    def epochs_for(self, inputs: int, patients: int) -> int:
        """Return the number of epochs for a training set.

        Args:
            inputs: encoder inputs, one view of each counted.
            patients: groups of cases that they come from.
        """
        longer = self.epochs * math.sqrt(max(1.0, inputs / REFERENCE_INPUTS, patients / REFERENCE_PATIENTS))
        return min(round(longer), max(self.epochs, self.maximum_epochs))


@dataclass(frozen=True)
class StepEstimate:
    """What one step is expected to cost on the machine that planned.

    Attributes:
        memory_mib: peak of main memory, of all processes together.
        gpu_memory_mib: peak of the GPU, 0 where there is none with memory of its own.
    """

    seconds: float
    disk_mib: float
    memory_mib: float
    gpu_memory_mib: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All decisions for one data set; the heads share preprocessing and embeddings.

    Attributes:
        strategy: of `STRATEGIES`, the recommended one; followed only where --tune asks for it.
        keep_largest: classes of which predictions keep only the largest connected component, one after the other;
            `FOREGROUND` stands for all together.
        channel_names, labels, regions_class_order, file_ending: copied from dataset.json, so that a model folder
            says by itself what goes in and what comes out.
        reasons: decision -> one sentence with the figures that led to it.
        estimates: step -> predicted cost.
        prompts: only in the plan that goes along with a head that needs prompts, how these are drawn from references.
    """

    version: int
    dataset: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, LabelValue]
    regions_class_order: tuple[int, ...] | None
    file_ending: str
    preprocessing: Preprocessing
    encoding: Encoding
    configurations: Mapping[str, Configuration]
    keep_largest: tuple[str, ...]
    folds: int
    group_pattern: str | None
    reasons: Mapping[str, str]
    estimates: Mapping[str, StepEstimate]
    strategy: str = field(default="head", metadata=SPARSE)
    prompts: PromptOptions | None = field(default=None, metadata=SPARSE)

    @property
    def label_set(self) -> LabelSet:
        """Return the labels with their methods."""
        return LabelSet(self.labels, self.regions_class_order)

    def largest_only(self, more: Sequence[str] = ()) -> tuple[tuple[int, ...], ...]:
        """Return the label values of each entry of `keep_largest`, and of each class in `more`.

        Raises:
            PlanError: there is no class of such a name.
        """
        pieces = {FOREGROUND: self.label_set.foreground_values, **self.label_set.targets}
        for name in (*self.keep_largest, *more):
            if name not in pieces:
                raise PlanError(f"{self.dataset}: keep_largest: no class {name!r}; {suggest(name, pieces)}")
        return tuple(pieces[name] for name in (*self.keep_largest, *more))

    def configuration(self, name: str) -> Configuration:
        """Return a configuration by name.

        Raises:
            PlanError: the plan has none of that name.
        """
        if name not in self.configurations:
            raise PlanError(f"{self.dataset}: no configuration {name!r}; {suggest(name, self.configurations)}")
        return self.configurations[name]

    def for_configuration(self, name: str, tuning: Tuning | None = None, prompts: PromptKind | None = None) -> Plan:
        """Return the plan as a configuration follows it: with its own encoder in place, where it names or tunes one.

        An encoder that it names sees the same views of the same inputs, and has its published weights, if any. The
        other configurations are left out then, since their heads do not fit its embeddings.

        Args:
            tuning: takes the place of the configuration's own.
            prompts: the same, of their kind.

        Raises:
            PlanError: the plan has none of that name.
            UsageError: prompts, for a head that takes none.
        """
        configuration = self.configuration(name)
        if prompts is not None:
            configuration = configuration.with_prompts(prompts)
        if tuning is not None:
            configuration = configuration.with_tuning(tuning)
        encoding, own = self.encoding, configuration.encoder
        if own not in (None, encoding.encoder):
            encoding = replace(encoding, encoder=own, weights=None, pixels=False)
        if configuration.tuning is not None and configuration.tuning.of_encoder:
            encoding = replace(encoding, tuned=True, tuned_from=configuration.tuning.first_block)
        others = self.configurations if (encoding, configuration.prompts) == (self.encoding, None) else {}
        configurations = {**others, name: configuration}
        return replace(self, encoding=encoding, configurations=configurations, prompts=configuration.prompts)


def settings_digest(*settings: object) -> str:
    """Return the sha256 over settings: equal settings, equal digest."""
    return sha256_of_text("\n".join(canonical(entry) for entry in settings))


def load_plan(path: Path | str) -> Plan:
    """Return the plan in a file, its structure checked.

    Raises:
        PlanError: the file is missing, has a key or value that a plan has not, or is of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise PlanError(f"{path}: no such file. Run autosam_plan_and_preprocess first.")
    content = read_json(path)
    version = content.get("version", PLAN_VERSION) if isinstance(content, dict) else PLAN_VERSION
    if version != PLAN_VERSION:  # before its structure, which is another in other versions
        raise PlanError(f"{path}: plan of version {version}, expected {PLAN_VERSION}. Plan again with --replan.")
    plan: Plan = from_json(Plan, content, str(path))
    log.debug("read: %s", path)
    return plan
