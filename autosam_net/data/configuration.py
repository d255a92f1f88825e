"""How one head is trained, and what learns with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from autosam_net.data.prompts import PROMPT_KINDS, PromptKind, PromptOptions
from autosam_net.errors import UsageError
from autosam_net.jsonio import SPARSE, from_json
from autosam_net.registry import suggest

REFERENCE_INPUTS = 40  # training inputs up to which a head's own number of epochs is enough
REFERENCE_PATIENTS = 2  # and patients: one slice each of many patients asks for more than many slices of one
TUNED_BATCH = 4  # inputs, as published; passes through an encoder that learns take memory
TUNED_ITERATIONS = 10  # of an epoch: such steps take seconds on a CPU, and time limits are looked at between epochs
STRATEGIES = ("head", "head:lora", "head:adapter", "encoder+head:full", "encoder+head:lora", "encoder+head:adapter")
"""What can be tuned and how; `head` is the head alone, all of it, over the frozen encoder."""
TRIAL_PART = 5  # a fifth of the labelled patients, as of five folds, is held out to see whether tuning helps
TUNED_PATIENTS = 5 * TRIAL_PART  # of fewer than five held out even a gain in every one may be chance, 1 in 16


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
