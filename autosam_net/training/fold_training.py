"""What one training depends on, and what follows from it: digests, rates, precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autosam_net.data.configuration import Configuration
from autosam_net.data.plan import Plan, settings_digest
from autosam_net.device import drawing_processes
from autosam_net.embedding.source import EncoderSource
from autosam_net.encoders.pretrained import PretrainedRecord, find_head
from autosam_net.encoders.weights import weights_sha256
from autosam_net.files import sha256_of_files
from autosam_net.preprocessing.preprocess import StoredCase
from autosam_net.training.loop import Course, learning_rate
from autosam_net.training.run import TrainingOptions
from autosam_net.training.team import Team
from autosam_net.training.unlabelled import RATE, Lessons

TUNED_WARM_UP, TUNED_POWER = 200, 0.9  # of pretrained parts, as published (Gu et al., arXiv 2404.09957)


@dataclass(frozen=True)
class FoldTraining:
    """What stays the same while a head is trained on one fold.

    Attributes:
        digest: of all that the result depends on, the length of the training left out.
        deadline: of the monotonic clock, in seconds.
        lessons: what unlabelled cases teach, if any.
        start: model.safetensors of the trained head that training begins with, if any.
    """

    plan: Plan
    settings: Configuration
    options: TrainingOptions
    folder: Path
    source: EncoderSource
    digest: str
    deadline: float
    lessons: Lessons | None
    start: Path | None
    team: Team

    @property
    def pretrained(self) -> PretrainedRecord | None:
        """Return the part of a head that training begins with, if any; a head that was trained already has it."""
        return None if self.start is not None else pretrained_part(self.settings, self.options)

    @property
    def mixed_precision(self) -> bool:
        return self.source.precision == "bfloat16"

    @property
    def fresh_views(self) -> bool:
        """Return whether batches are slices, augmented anew, instead of cached embeddings or features."""
        encoding = self.plan.encoding
        return self.options.fresh_views or (encoding.tuned and encoding.tuned_from is None)

    @property
    def drawing_processes(self) -> int:
        """Return how many processes draw batches; none where they are only read."""
        return drawing_processes(self.options.device, self.team.share.count) if self.fresh_views else 0

    @property
    def course(self) -> Course:
        return Course(
            folder=self.folder,
            digest=self.digest,
            iterations=self.settings.iterations,
            rate=self.rate,
            deadline=self.deadline,
            cure="Lower learning_rate of this configuration in plan.json, and begin anew with --overwrite.",
            drawing_processes=self.drawing_processes,
            team=self.team,
        )

    @property
    def learning_rate(self) -> float:
        """Return the highest rate, of the head."""
        return self.settings.learning_rate * (1.0 if self.start is None else RATE)

    def rate(self, iteration: int, epochs: int) -> float:
        """Return the head's rate in an iteration."""
        schedule = learning_rate if self.settings.tuning is None else poly_rate
        return schedule(iteration, epochs * self.settings.iterations, self.learning_rate)


def poly_rate(iteration: int, total: int, highest: float) -> float:
    """Return the rate of an iteration while pretrained parts learn: linear warm-up, then down to zero as published.

    Of a training of less than 1000 iterations the warm-up takes a fifth.
    """
    warm_up = min(TUNED_WARM_UP, total // 5)
    if iteration < warm_up:
        return highest * (iteration + 1) / warm_up
    return highest * (1.0 - (iteration - warm_up) / (total - warm_up)) ** TUNED_POWER


def digest_of(
    plan: Plan,
    settings: Configuration,
    options: TrainingOptions,
    records: Sequence[StoredCase],
    lessons: Lessons | None,
    start: Path | None,
) -> str:
    """Return the digest of all that a result depends on, the length of the training left out."""
    encoding, recipe = replace(plan.encoding, weights=None), replace(settings, epochs=0, maximum_epochs=0)
    weights = weights_sha256(plan.encoding.encoder, plan.encoding.weights_file)
    labels = list(plan.labels.items()), plan.regions_class_order
    contents = [record.key for record in records]
    files = [] if start is None else [start, *([] if lessons is None else map(lessons.file, lessons.cases))]
    taught = sha256_of_files(files) if files else None
    pretrained = pretrained_part(settings, options)
    more = [*(["fresh views"] if options.fresh_views else []), *([] if pretrained is None else [pretrained.sha256])]
    return settings_digest(encoding, recipe, weights, labels, options.seed, contents, taught, *more)


def digest_with_length(digest: str, settings: Configuration, options: TrainingOptions) -> str:
    """Return the digest of all that a result depends on, the length of the training included."""
    return settings_digest(digest, settings, options.epochs, options.max_minutes)


def pretrained_part(settings: Configuration, options: TrainingOptions) -> PretrainedRecord | None:
    """Return the part of a head that was made without labels, and that training is asked to begin with, if any."""
    return None if options.pretrained is None else find_head(options.pretrained, settings.head)
