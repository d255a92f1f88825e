"""How a data set is parted, how heads learn on it, whether the encoder learns too, and which classes are one piece."""

from __future__ import annotations

from collections.abc import Mapping

from autosam_net.data.configuration import (
    REFERENCE_INPUTS,
    REFERENCE_PATIENTS,
    TRIAL_PART,
    TUNED_BATCH,
    TUNED_PATIENTS,
    Configuration,
)
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import FOREGROUND
from autosam_net.data.splits import FOLDS
from autosam_net.encoders.catalog import ENCODERS
from planning.machine import SLOW_PASS, HeadRecipe, Machine, TunedProbe
from planning.rules.counts import round_down

LARGE_PIXELS = 64  # structures larger than this have an inside that a few convolutions cannot tell from other tissue
MOST_EPOCHS = 2.5  # times a head's own number
ONE_PIECE = 0.95  # a class whose largest component holds this share everywhere is one piece; specks are slips
ONE_PIECE_CASES = 2
TUNING = "encoder+head:lora"  # of the strategies with both parts the one with the fewest parameters, merged afterwards
TUNING_STEPS = 1000  # with the published warm-up of 200
TUNING_SECONDS = 60 * 60  # of a fold


def choose_folds(groups: Mapping[str, str], given: int | None) -> tuple[int, str]:
    """Return the number of folds; `given` is that of splits brought with the data."""
    patients = len(set(groups.values()))
    if given is not None:
        return given, f"as in the splits_final.json that came with the data ({len(groups)} cases, {patients} groups)"
    kept = f"{len(groups)} cases of {patients} groups (patients); the cases of a group stay together"
    if patients < FOLDS:
        return patients, f"{kept}; fewer groups than {FOLDS}, so each is held out once"
    return FOLDS, kept


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
    steps = round_down(TUNING_SECONDS / step)
    figures = f"a step of {TUNED_BATCH} inputs through the encoder takes {step:.2g} s on {machine.device}"
    if steps < TUNING_STEPS:
        return "head", (
            f"the encoder stays frozen: {figures}, so that {steps} fit an hour, under the {TUNING_STEPS} that tuning "
            "wants (on ACDC 170 to 190 added 0.003 to 0.005 to the Dice of trained heads); a head learns on cached "
            "embeddings in minutes"
        )
    memory = machine.gpu_memory_mib or machine.memory_mib
    if 0 < memory < need:
        return "head", f"the encoder stays frozen: tuning it takes {need:.0f} MiB of memory, {memory:.0f} are there"
    if patients < TUNED_PATIENTS:
        return "head", (
            f"the encoder stays frozen: a fold trains on {patients} patients, under the {TUNED_PATIENTS} of which "
            "enough could be held out to tell whether tuning helps (on ACDC with 7 it added 0.005 to the Dice of a "
            "trained head, but lost in one draw of three)"
        )
    return TUNING, (
        f"{figures}, so that {steps} fit an hour, and a fold trains on {patients} patients: low-rank updates of "
        f"encoder and head, from the trained head on (--tune {TUNING} --from-head), if a trial on "
        f"{patients // TRIAL_PART} of the patients shows that it helps"
    )
