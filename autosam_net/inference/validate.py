"""Predict the cases that a fold held out, and compare them with their references on the raw grid."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.case import PreprocessedCase
from autosam_net.data.configuration import TUNED_PATIENTS
from autosam_net.data.dataset import DatasetSpec, label_files
from autosam_net.data.encoding import PLAIN
from autosam_net.data.plan import Plan
from autosam_net.data.prompts import PROMPTS_FILE, Prompt, write_prompts
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import embed_poses
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import UsageError
from autosam_net.evaluation.case_table import CASES_FILE, CONFIDENCE, confidence_rows, replace_columns
from autosam_net.evaluation.gain import measure_gain
from autosam_net.evaluation.metric_table import read_metric_tables
from autosam_net.evaluation.report import Summary, evaluate_pairs, write_summary
from autosam_net.files import alone
from autosam_net.inference.calibrate import calibrate
from autosam_net.inference.export import export_case
from autosam_net.inference.model_card import write_model_card
from autosam_net.inference.predict import probabilities_of_each
from autosam_net.inference.pseudo_labels import write_lessons
from autosam_net.inference.trained_head import load_head
from autosam_net.inference.uncertainty import Watch, watch_members
from autosam_net.jsonio import read_sealed
from autosam_net.parallel import progress
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.prompts import draw_prompts, prompts_on_raw_grid
from autosam_net.training.cases import count_patients, patients_of, training_split, unlabelled_part
from autosam_net.training.check_plan import check_tuning
from autosam_net.training.run import ModelFolder, TrainingOptions
from autosam_net.training.team import this_team
from autosam_net.training.train import train_head

log = logging.getLogger(__name__)
TRIALS_FOLDER = "trials"

SlicesOf = Callable[
    [PreprocessedCase, Mapping[str, CachedEmbedding], Sequence[Prompt] | None], Iterator[NDArray[np.float32]]
]
"""Takes a case, its embeddings by pose, and prompts in preprocessed pixels where the plan has them; yields slices.

These are probabilities `(outputs, Y, X)` on the cropped raw grid.
"""


def train_and_validate(
    dataset: DatasetSpec, plan: Plan, configuration: str, fold: str, options: TrainingOptions, folders: Folders
) -> tuple[Path, Summary | None]:
    """Train a head on one fold, then validate it; return the fold's folder and the summary of its validation.

    With unlabelled cases the same head is trained and validated without them first; it labels them, and what both
    reach can be compared. A tuning that begins with a trained head has it trained and validated first as well; where
    the encoder is to learn, a trial then says whether it helps, on labelled patients that are held out of it.

    The summary is None where the fold holds nothing out, and where the fold was trained and validated already.

    Raises:
        AutosamError: as `train_head` and `validate_fold` do.
        UsageError: the options contradict each other, a trial shows no gain, or there are too few patients for one.
    """
    split = training_split(dataset, fold, options, folders)
    planned, plan = plan, plan.for_configuration(configuration, options.tuning, options.prompt_kind)
    _check_options(planned, plan, configuration, options)
    lessons, start = None, None
    if options.from_head:
        tried = plan.encoding.tuned and not (options.anyway or options.trial)
        if tried:
            _check_patients(fold, count_patients(split, dataset, folders))
        untuned = replace(options.untuned, epochs=None, resume=True, overwrite=False)
        head, _ = train_and_validate(dataset, planned, configuration, fold, untuned, folders)
        _warn_if_cut_short(head)
        start = head / "model.safetensors"
        if tried:
            _try_tuning(dataset, planned, configuration, fold, options, head, folders)
    if unlabelled := unlabelled_part(dataset, plan, fold, options, folders):
        supervised = replace(options, unlabelled=False, resume=not options.overwrite)
        taught, _ = train_and_validate(dataset, plan, configuration, fold, supervised, folders)
        with this_team().leader_first():
            lessons = write_lessons(dataset, plan, taught, unlabelled, options.device, folders)
    folder = train_head(dataset, plan, configuration, fold, options, folders, lessons, start)
    if not this_team().leads:
        return folder, None
    if split.val and not (folder / "validation" / "summary.json").is_file():
        return folder, validate_fold(dataset, plan, folder, split.val, options.device, folders)
    _describe(ModelFolder(folder.parent), dataset, folders)
    return folder, None


def _warn_if_cut_short(head: Path) -> None:
    """Say so where the head that tuning begins with is not at the end of its recipe: it comes first."""
    record = read_sealed(head / "run.json")
    trained, planned = record["epochs"], record.get("planned_epochs", 0)  # not in those of earlier versions
    if trained < planned and this_team().leads:
        log.warning(
            "%s: ended after %d of %d planned epochs. Time for the rest may bring more than tuning does.",
            *(head, trained, planned),
        )


def _check_patients(fold: str, count: int) -> None:
    """Refuse to tune the encoder where too few patients are labelled for a trial that says whether it helps."""
    if count < TUNED_PATIENTS:
        raise UsageError(
            f"--from-head: fold {fold} trains on {count} patients; with fewer than {TUNED_PATIENTS} not enough can be "
            "held out to tell whether tuning the encoder helps the trained head. On ACDC it gained 0.005 with seven, "
            "but lost in one draw of three, and with one it lost in two. Keep the head, or do it with --anyway."
        )


def _try_tuning(
    dataset: DatasetSpec,
    plan: Plan,
    configuration: str,
    fold: str,
    options: TrainingOptions,
    trained: Path,
    folders: Folders,
) -> None:
    """Train the head and tune the encoder on most of the labelled patients, and compare both on the others.

    The validation part has no say in it, so that its figures remain those of cases nobody has chosen by.

    Args:
        trained: folder of the head that is to be tuned. The trial's head gets as many epochs, whatever time is left
            for tuning: were it cut short, tuning would gain by training on what the head still lacks.

    Raises:
        UsageError: tuning gains no more than chance may.
    """
    own = replace(folders, results=folders.results / dataset.name / TRIALS_FOLDER)
    trial = replace(options, trial=True)
    alike = replace(trial.untuned, epochs=read_sealed(trained / "run.json")["epochs"], max_minutes=None)
    head, tuned = (train_and_validate(dataset, plan, configuration, fold, wanted, own)[0] for wanted in (alike, trial))
    with this_team().leader_first():
        before, after = (read_metric_tables([folder / "validation" / CASES_FILE]) for folder in (head, tuned))
        gain = measure_gain(before, after, patients_of(dataset, folders))
    figures = (
        f"on {gain.patients} labelled patients held out for a trial, mean Dice {gain.before:.3f} of the head, "
        f"{gain.after:.3f} after tuning; {gain.better} patients gain (p = {gain.p:.2g}, Wilcoxon's test)"
    )
    if not gain.is_sure:
        raise UsageError(
            f"--from-head: {figures}: no more than chance may give. Keep the head, or do it with --anyway."
        )
    log.info("%s", figures)


def _check_options(planned: Plan, plan: Plan, name: str, options: TrainingOptions) -> None:
    """Refuse a training that cannot be done, before a part of it is.

    Args:
        planned: the data set's plan.
        plan: as the configuration follows it.
    """
    settings = plan.configuration(name)
    check_tuning(settings.tuning, settings.head, f"{name}: tuning")
    if options.unlabelled and settings.tuning is not None:
        raise UsageError("--unlabelled: teaches a head over the frozen encoder only. Leave --tune out.")
    if options.unlabelled and plan.prompts is not None:
        raise UsageError(f"--unlabelled: nobody prompts what has no labels, and {name} needs prompts. Leave it out.")
    if options.from_head and (options.tuning is None or planned.configuration(name).tuning is not None):
        raise UsageError("--from-head: goes with --tune, of a configuration that tunes nothing by the plan.")


def validate_fold(
    dataset: DatasetSpec, plan: Plan, folder: Path, cases: tuple[str, ...], device: str, folders: Folders
) -> Summary:
    """Write `validation/` in a fold's folder: label maps, summary.json and cases.csv; return the summary.

    Then the model learns from the validation cases of all its folds which Dice to expect of its predictions, and its
    card is written.

    Args:
        plan: as the fold's configuration follows it (`Plan.for_configuration`).

    Raises:
        DatasetError: a case has no label file.
    """
    source = EncoderSource(plan.encoding, device)
    head = load_head(folder / "model.safetensors", plan, source)

    watches: dict[str, Watch] = {}

    def slices_of(
        case: PreprocessedCase, entry: Mapping[str, CachedEmbedding], prompts: Sequence[Prompt] | None
    ) -> Iterator[NDArray[np.float32]]:
        labels, poses = plan.label_set, plan.encoding.poses
        watch = watches[case.properties.name] = watch_members(labels, 1, case.properties)
        return watch.means(probabilities_of_each(case, [head], labels, source, entry, poses, prompts))

    output = folder / "validation"
    poses, largest = plan.encoding.all_poses, plan.largest_only()
    with alone(output):
        summary = validate_cases(dataset, plan, output, cases, slices_of, device, folders, poses, largest)
        rows = [confidence_rows(name, watch.confidences()[0]) for name, watch in watches.items()]
        replace_columns(output / CASES_FILE, CONFIDENCE, {key: row for part in rows for key, row in part.items()})
        write_summary(summary, output)  # last: where it lies, the fold is validated
    _describe(ModelFolder(folder.parent), dataset, folders)
    return summary


def _describe(model: ModelFolder, dataset: DatasetSpec, folders: Folders) -> None:
    """Learn from all folds which Dice to expect, and write the model's card; one fold after the other."""
    with alone(model.path):
        calibrate(model, patients_of(dataset, folders))
        write_model_card(model, dataset, folders)


def validate_cases(
    dataset: DatasetSpec,
    plan: Plan,
    output: Path,
    cases: tuple[str, ...],
    slices_of: SlicesOf,
    device: str,
    folders: Folders,
    poses: Sequence[str] = (PLAIN,),
    largest_only: Sequence[Sequence[int]] = (),
) -> Summary:
    """Write label maps of labelled cases into `output`; return the summary, which is not written yet.

    Embeddings are taken from the cache, and put there for the other heads to use. Prompts, where the plan has them, are
    drawn from the references, and written as well.

    Args:
        poses: whose embeddings `slices_of` is given.

    Raises:
        DatasetError: a case has no label file.
    """
    references = label_files(dataset, cases)
    entries = embed_poses(dataset, plan, folders, cases, poses, device)
    embedded, given = list(zip(cases, entries, strict=True)), list[Prompt]()
    for name, entry in progress(embedded, "validate", len(cases), name=lambda pair: pair[0]):
        case = load_case(cases_folder(dataset, folders) / name)
        target = output / (name + dataset.file_ending)
        prompts = None if plan.prompts is None else draw_prompts(case, plan.label_set, plan.prompts)
        given += prompts_on_raw_grid(prompts or (), case.properties)
        slices = slices_of(case, entry, prompts)
        export_case(target, slices, case.properties, plan.label_set, largest_only=largest_only)
    pairs = [(name, references[name], output / (name + dataset.file_ending)) for name in cases]
    summary = evaluate_pairs(pairs, plan.label_set)
    if plan.prompts is None:
        return summary
    write_prompts(output / PROMPTS_FILE, given)
    return replace(summary, prompts=f"{plan.prompts.in_words}, from the reference")
