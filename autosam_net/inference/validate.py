"""Predict the cases that a fold held out, and compare them with their references on the raw grid."""

from __future__ import annotations

from pathlib import Path

from autosam_net.data.dataset import DatasetSpec, label_files
from autosam_net.data.plan import Plan
from autosam_net.embedding.embed import EncoderSource, embed_dataset
from autosam_net.evaluation.report import Summary, evaluate_pairs, write_summary
from autosam_net.inference.export import export_case
from autosam_net.inference.model import load_head
from autosam_net.inference.predict import slice_probabilities
from autosam_net.parallel import progress
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case


def validate_fold(
    dataset: DatasetSpec, plan: Plan, folder: Path, cases: tuple[str, ...], device: str, folders: Folders
) -> Summary:
    """Write `validation/` in a fold's folder: label maps, summary.json and cases.csv; return the summary.

    Embeddings are taken from the cache, and put there for the other heads to use.

    Raises:
        DatasetError: a case has no label file.
    """
    references = label_files(dataset, cases)
    source = EncoderSource(plan.encoding, device)
    head = load_head(folder / "model.safetensors", plan, source)
    entries = embed_dataset(dataset, plan, folders, cases, 1, device)
    output = folder / "validation"
    for name, entry in progress(list(zip(cases, entries, strict=True)), "validate", len(cases)):
        case = load_case(cases_folder(dataset, folders) / name)
        slices = slice_probabilities(case, [head], plan.label_set, source, entry, plan.encoding.flips)
        export_case(output / (name + dataset.file_ending), slices, case.properties, plan.label_set)
    pairs = [(name, references[name], output / (name + dataset.file_ending)) for name in cases]
    summary = evaluate_pairs(pairs, plan.label_set)
    write_summary(summary, output)
    return summary
