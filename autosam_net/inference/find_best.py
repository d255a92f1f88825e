"""Choose the best configuration of a data set by cross-validation, say why, and write down how to predict with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Plan, load_plan
from autosam_net.data.splits import load_splits
from autosam_net.evaluation.selection import (
    COMPONENT_MARGIN,
    PAIR_MARGIN,
    Choice,
    DiceTable,
    Figures,
    NestedEstimate,
    choose,
    figures,
    nested_estimate,
)
from autosam_net.files import atomic_file
from autosam_net.inference.best import BEST_FILE, Best, candidate_name, model_checksums, plan_digest
from autosam_net.inference.compare import Comparison, measure, plan_comparison, predict_held_out
from autosam_net.jsonio import sealed, write_json
from autosam_net.paths import Folders, find_folders, root_flag

INSTRUCTIONS_FILE = "inference_instructions.txt"


def find_best_configuration(
    dataset: DatasetSpec,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    device: str = "cpu",
    folders: Folders | None = None,
) -> Best:
    """Compare trained heads and all pairs of them; write best.json and inference_instructions.txt.

    Args:
        configurations: names of model folders; if None, the plan's configurations that are trained.
        folds: if None, those on which all of them are trained.

    Raises:
        DatasetError: a case has no label file any more.
        ModelError: nothing is trained, or what is asked for cannot be compared.
        UsageError: a fold is not trained, or holds nothing out.
    """
    folders = folders or find_folders()
    comparison = plan_comparison(dataset, configurations, folds, folders)
    checksums = model_checksums(comparison.models, list(comparison.held_out))  # before hours in which a head may change
    predict_held_out(comparison, device)
    best = _best(comparison, measure(comparison), checksums)
    folder = folders.results / dataset.name
    write_json(folder / BEST_FILE, sealed(best))
    with atomic_file(folder / INSTRUCTIONS_FILE) as temporary:
        temporary.write_text(instructions(best, comparison.plan, folders), encoding="utf-8")
    return best


def _best(comparison: Comparison, table: DiceTable, checksums: Mapping[str, str]) -> Best:
    choice = choose(table, np.ones(len(table.folds), bool))
    nested = nested_estimate(table)
    plain = zip(table.candidates, table.values[..., 0], strict=True)
    candidates = {candidate_name(names): figures(dice, table.classes) for names, dice in plain}
    splits = load_splits(comparison.folders.preprocessed / comparison.dataset.name / "splits_final.json")
    trained = {model.path.name: model.trained_folds() for model in comparison.models}
    missing = {
        name: tuple(str(fold) for fold in range(len(splits)) if str(fold) not in found)
        for name, found in trained.items()
    }
    return Best(
        dataset=comparison.dataset.name,
        choice=choice,
        folds=tuple(comparison.held_out),
        cases=len(table.folds),
        candidates=candidates,
        cross_validation=figures(table.of_choice(choice), table.classes),
        nested=nested,
        missing_folds={name: absent for name, absent in missing.items() if absent},
        models=checksums,
        plans={model.path.name: plan_digest(load_plan(model.plan_file)) for model in comparison.models},
        reasons={
            "configurations": _reason_for_configurations(table, choice, candidates),
            **_reasons_for_components(table, choice, comparison.plan),
            "nested": _reason_for_nested(choice, nested),
        },
    )


def _reason_for_configurations(table: DiceTable, choice: Choice, candidates: Mapping[str, Figures]) -> str:
    means = {names: candidates[candidate_name(names)].mean or 0.0 for names in table.candidates}
    single, pair = (
        max((names for names in means if len(names) == number), key=lambda names: means[names], default=None)
        for number in (1, 2)
    )
    assert single is not None, "a comparison has at least one configuration"
    first = f"{candidate_name(single)} is the best single one of {_count(means, 1)} with mean Dice {means[single]:.4f}"
    if pair is None:
        return f"{first}; there is no pair to compare it with."
    gain = f"{means[pair] - means[single]:+.4f}"
    verdict = "at least" if len(choice.configurations) > 1 else "less than"
    return (
        f"{first}; the best pair, {candidate_name(pair)}, has {means[pair]:.4f} ({gain}), {verdict} {PAIR_MARGIN} "
        f"more, so that {candidate_name(choice.configurations)} is taken."
    )


def _count(candidates: Mapping[tuple[str, ...], float], size: int) -> int:
    return sum(len(names) == size for names in candidates)


def _reasons_for_components(table: DiceTable, choice: Choice, plan: Plan) -> dict[str, str]:
    if plan.label_set.has_regions:
        return {"keep_largest": "Regions overlap, so that all components are kept."}
    by_plan = "The plan keeps only the largest component, in all candidates."
    reasons = {f"keep_largest.{name}": by_plan for name in plan.keep_largest}
    values = table.values[table.candidates.index(choice.configurations)]
    plain, largest = (figures(values[..., option], table.classes).classes for option in (0, 1))
    for name in [name for name in table.classes if name not in plan.keep_largest]:
        before, after = plain[name] or 0.0, largest[name] or 0.0
        verdict, what = ("at least", "only that") if name in choice.keep_largest else ("less than", "every component")
        reasons[f"keep_largest.{name}"] = (
            f"Dice {before:.4f} as predicted and {after:.4f} with only the largest component ({after - before:+.4f}), "
            f"{verdict} {COMPONENT_MARGIN} more, so that {what} is kept."
        )
    return reasons


def _reason_for_nested(choice: Choice, nested: NestedEstimate | None) -> str:
    if nested is None:
        return "All held-out cases are of one patient: nothing is left to judge the choice on."
    same = sum(part.choice == choice for part in nested.parts)
    return (
        f"Each of {len(nested.parts)} parts ({', '.join(part.cases for part in nested.parts)}) was judged by a choice "
        f"made on the patients of the others; it was the one above for {same} of them."
    )


def instructions(best: Best, plan: Plan, folders: Folders) -> str:
    """Return the text of inference_instructions.txt: the choice, figures, reasons, commands, and missing folds."""
    identifier = int(best.dataset[7:10])
    root = root_flag(folders)
    names = " ".join(best.choice.configurations)
    by_plan = f"\nin all candidates, by the plan: only the largest component of {', '.join(plan.keep_largest)}"
    parts = [
        f"{best.dataset}: {best.description}{by_plan if plan.keep_largest else ''}",
        f"Dice of {best.cases} held-out cases on the raw grid, each predicted by heads that were not trained on it:",
        _table(best),
        "\n".join(f"{decision}: {reason}" for decision, reason in best.reasons.items()),
        "To predict with this choice:",
        f"    autosam_predict -d {identifier} -i INPUT -o OUTPUT{root}",
        "The same heads without post-processing:",
        f"    autosam_predict -d {identifier} -c {names} -f {' '.join(best.folds)} --disable_postprocessing -i INPUT "
        f"-o OUTPUT{root}",
        _missing(best, plan, root),
    ]
    return "\n\n".join(parts) + "\n"


def _table(best: Best) -> str:
    rows = dict(best.candidates)
    rows["the choice, judged on the cases it was made on"] = best.cross_validation
    if best.nested is not None:
        rows["nested estimate, judged on other cases"] = best.nested.dice
    width = max(map(len, rows))
    classes = list(best.cross_validation.classes)
    columns = {name: max(len(name), 6) for name in ("mean", *classes)}
    lines = ["  ".join([" " * width, *(f"{name:>{wide}}" for name, wide in columns.items())])]
    for name, dice in rows.items():
        cells = ["-" if value is None else f"{value:.4f}" for value in (dice.mean, *dice.classes.values())]
        aligned = (f"{cell:>{wide}}" for cell, wide in zip(cells, columns.values(), strict=True))
        lines.append("  ".join([f"{name:<{width}}", *aligned]))
    return "\n".join(lines)


def _missing(best: Best, plan: Plan, root: str) -> str:
    """Return which folds are not trained yet, with the commands for those of the plan's own configurations."""
    if not best.missing_folds:
        return "All folds are trained."
    identifier = int(best.dataset[7:10])
    lines = ["Folds not trained yet; with more of them the ensemble is better and the figures are surer:"]
    for name, folds in best.missing_folds.items():
        if name in plan.configurations:
            lines += [f"    autosam_train {identifier} {name} {fold}{root}" for fold in folds]
        else:
            lines.append(f"    {name}: {' '.join(folds)}")
    again = f"    autosam_find_best_configuration {identifier} -c {' '.join(best.plans)}{root}"
    return "\n".join([*lines, "Then compare again:", again])
