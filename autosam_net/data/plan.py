"""What was decided for a data set, and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autosam_net.data.configuration import Configuration, Tuning
from autosam_net.data.encoding import Encoding
from autosam_net.data.labels import LabelSet, LabelValue
from autosam_net.data.prompts import PromptKind, PromptOptions
from autosam_net.errors import PlanError
from autosam_net.files import sha256_of_text
from autosam_net.jsonio import SPARSE, canonical, from_json, read_json
from autosam_net.registry import suggest

log = logging.getLogger(__name__)

PLAN_VERSION = 4
FOREGROUND = "foreground"  # all classes together


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
