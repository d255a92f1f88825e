"""The report of a data set: one HTML file that needs nothing beside it, not even a network."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from autosam_net.data.dataset import CaseFiles, DatasetSpec, training_cases
from autosam_net.data.decisions import decisions
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import Plan, load_plan
from autosam_net.data.splits import Split, load_splits
from autosam_net.embedding.cache import CacheUse, cache_use
from autosam_net.errors import DatasetError, ImageFileError, ModelError
from autosam_net.evaluation.expected_dice import Judgement, read_expected_dice
from autosam_net.evaluation.interval import Interval
from autosam_net.files import atomic_file
from autosam_net.inference.best import Best, read_best
from autosam_net.jsonio import load
from autosam_net.parallel import progress
from autosam_net.paths import Folders
from autosam_net.reporting import charts, overlay
from autosam_net.reporting.failures import Failure, list_failures
from autosam_net.reporting.fingerprint import ClassRow, class_rows, fingerprint_charts
from autosam_net.reporting.results import METRICS, Result, low_end, measure_run
from autosam_net.reporting.runs import RunRecord, command_of, read_runs
from autosam_net.reporting.viewer import view_case

log = logging.getLogger(__name__)

ACCEPTABLE = 0.7  # Dice: "excellent agreement" above it, Zijdenbos et al., IEEE Trans. Med. Imaging 13(4), 1994
WORST, MEDIAN, BEST, EXAMPLES = 6, 3, 1, 3  # cases in the viewer
PICTURE_BYTES = 9_000_000  # of the viewer's cases together, so that the file stays below 15 MB
FEW_PATIENTS = 10  # below which a bootstrap interval is too narrow


@dataclass(frozen=True)
class _Sources:
    """What the report is made from."""

    dataset: DatasetSpec
    plan: Plan
    fingerprint: Fingerprint
    splits: Sequence[Split]
    runs: Sequence[RunRecord]
    folders: Folders

    @property
    def results(self) -> Path:
        return self.folders.results / self.dataset.name


def write_report(dataset: DatasetSpec, output: Path, folders: Folders, names: Sequence[str] | None = None) -> None:
    """Write the report of a data set that is planned, whatever has been trained so far.

    Args:
        names: of the runs to report; all if None.

    Raises:
        DatasetError: a table of validated cases is damaged.
        ModelError: there is no run of such a name, or what a run learnt of its Dice is damaged.
        PlanError: the data set has not been planned, or a file of a run is damaged.
    """
    preprocessed = folders.preprocessed / dataset.name
    sources = _Sources(
        dataset,
        load_plan(preprocessed / "plan.json"),
        load(Fingerprint, preprocessed / "dataset_fingerprint.json"),
        load_splits(preprocessed / "splits_final.json"),
        read_runs(folders.results / dataset.name, names),
        folders,
    )
    page = _render(_contents(sources))
    with atomic_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _render(contents: Mapping[str, Any]) -> str:
    """Return the page; every text out of data is escaped, and the page itself forbids whatever is not in it."""
    import jinja2

    loader = jinja2.PackageLoader("autosam_net.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"figure": _figure, "interval": _interval, "breakable": _breakable}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # classes keep their order
    script, style = (loader.get_source(environment, name)[0] for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = environment.get_template("report.html")
    return template.render(**contents, script=Markup(script), style=Markup(style), script_digest=digest)


def _contents(sources: _Sources) -> dict[str, Any]:
    results = [measure_run(run, run.table, sources.fingerprint) for run in sources.runs if run.table is not None]
    # the best is one that needs no prompts, if there is any: those came from the references
    results.sort(key=lambda result: (result.run.prompts is not None, -(result.dice.mean or 0.0)))
    best = results[0] if results else None
    failures = [] if best is None else list_failures(best.table, best.run.unit, sources.fingerprint)
    chosen, remark = _chosen(sources)
    values = decisions(sources.plan)
    return {
        "dataset": sources.dataset,
        "identifier": sources.dataset.identifier,
        "fingerprint": sources.fingerprint,
        "patients": len(set(sources.fingerprint.groups.values())),
        "plan": sources.plan,
        "decisions": [(name, values.get(name, ""), reason) for name, reason in _ordered(sources.plan, best)],
        "results": results,
        "best": best,
        "chosen": chosen,
        "remarks": [*remark, *_remarks(sources, results)],
        "failures": failures,
        "flagging": _flagging(best),
        "below": sum(failure.dice < ACCEPTABLE for failure in failures),
        "acceptable": ACCEPTABLE,
        "metrics": METRICS,
        "boxes": _box_plots(best),
        "curves": _curves(sources.runs),
        "runs": sources.runs,
        "histograms": fingerprint_charts(sources.fingerprint),
        "classes": _classes(sources),
        "folds": _folds(sources),
        "cache": _cache(sources),
        "commands": _commands(sources),
        "viewer": _viewer(sources, best, failures),
        "whisker": partial(charts.whisker, low=low_end(results)),
        "low_end": low_end(results),
        "versions": {"autosam_net": version("autosam_net"), "Python": platform.python_version()},
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }


def _chosen(sources: _Sources) -> tuple[Best | None, list[str]]:
    """Return what autosam_find_best_configuration chose, and what is wrong with it, if anything."""
    try:
        return read_best(sources.results), []
    except ModelError as error:
        return None, [str(error)]


def _flagging(best: Result | None) -> Judgement | None:
    """Return how well the expected Dice tells bad cases of a run from good ones without a reference, where learnt."""
    learnt = None if best is None else read_expected_dice(best.run.model.path)
    return None if learnt is None or not learnt.judgement.bad else learnt.judgement


def _remarks(sources: _Sources, results: Sequence[Result]) -> list[str]:
    """Return what a reader must know before believing the figures."""
    if not results:
        return []
    remarks = []
    best, patients = results[0], len(set(sources.fingerprint.groups.values()))
    if best.patients < patients:
        remarks.append(f"Validated on {best.patients} of {patients} patients, none of them trained on.")
    if len({frozenset(result.table.cases) for result in results}) > 1:
        remarks.append("The runs were validated on different cases: their figures cannot be compared strictly.")
    elif len(results) > 1:
        remarks.append(f"The best of {len(results)} runs on the same cases: expect slightly less on new ones.")
    if any(result.run.prompts is not None for result in results):
        remarks.append("Runs with prompts were prompted from the references: upper bounds, not to be compared.")
    if best.patients < FEW_PATIENTS:
        remarks.append(f"With {best.patients} patients the interval is narrower than the truth.")
    return remarks


def _ordered(plan: Plan, best: Result | None) -> list[tuple[str, str]]:
    """Return decision and reason, the head of the best run first and the heads that were not trained last."""
    run = "" if best is None else f"{best.run.name}_"
    own = [f"head {name}" for name in plan.configurations if run.startswith(f"{name}_")]
    heads = [name for name in plan.reasons if name.startswith("head ") and name not in own]
    first = [name for name in own if name in plan.reasons]
    others = [name for name in plan.reasons if name not in (*heads, *first)]
    return [(name, plan.reasons[name]) for name in (*first, *others, *heads)]


def _box_plots(best: Result | None) -> list[Markup]:
    if best is None:
        return []
    table, unit = best.table, best.run.unit
    titles = {
        "Dice": ("Dice", 1.0),
        "NSD": (f"NSD at {best.run.tolerance:g} {unit}", 1.0),
        "HD95": (f"HD95, {unit}", None),
    }
    plots = []
    for metric, (title, high) in titles.items():
        columns = []
        for name in table.classes:
            values = table.of_class(metric, name)
            pairs = zip(table.cases, values.tolist(), strict=True)
            columns.append((name, [(case, value) for case, value in pairs if not np.isnan(value)]))
        plots.append(charts.box_plot(columns, title, high))
    return plots


def _curves(runs: Sequence[RunRecord]) -> list[Markup]:
    """Return the curves of all runs, one line a fold."""
    curves: list[Markup] = []
    for run in runs:
        logs = [(f"fold {fold.name}", fold.log) for fold in run.folds if fold.log]
        if not logs:
            continue
        pictures = [
            charts.line_chart(
                [(name, [row["epoch"] for row in rows], [row[key] for row in rows]) for name, rows in logs],
                f"{run.name}: {title}",
                "epoch",
                high,
            )
            for key, title, high in (("loss", "training loss", None), ("batch_dice", "Dice on training batches", 1.0))
        ]
        curves += pictures
    return curves


def _classes(sources: _Sources) -> list[tuple[ClassRow, str]]:
    """Return the classes of the fingerprint with their colours in the viewer."""
    colours = _colours(sources.plan)
    return [(row, colours.get(row.name, "#888")) for row in class_rows(sources.fingerprint)]


def _colours(plan: Plan) -> dict[str, str]:
    """Return class -> colour."""
    names = list(plan.label_set.targets)
    return dict(zip(names, overlay.colours(len(names)), strict=True))


def _folds(sources: _Sources) -> list[dict[str, Any]]:
    groups = sources.fingerprint.groups
    validated = {fold.name for run in sources.runs for fold in run.folds if fold.is_validated}
    return [
        {
            "name": str(index),
            "train": len(split.train),
            "train_patients": len({groups.get(case, case) for case in split.train}),
            "held_out": len(split.val),
            "patients": sorted({groups.get(case, case) for case in split.val}),
            "validated": str(index) in validated,
        }
        for index, split in enumerate(sources.splits)
    ]


def _commands(sources: _Sources) -> list[tuple[str, bool]]:
    """Return the commands that trained, each once, and whether they were recorded."""
    identifier = sources.dataset.identifier
    found = [command_of(run, fold, identifier) for run in sources.runs for fold in run.folds]
    return list(dict.fromkeys(entry for entry in found if entry is not None))


def _cache(sources: _Sources) -> list[CacheUse]:
    return cache_use(sources.folders.preprocessed / sources.dataset.name / "embeddings")


def _viewer(sources: _Sources, best: Result | None, failures: Sequence[Failure]) -> dict[str, Any]:
    """Return the cases to look at with all their slices, as far as the file stays small; fit for JSON."""
    labels, axis = sources.plan.label_set, sources.plan.preprocessing.slice_axis
    files = {case.name: case for case in training_cases(sources.dataset) if case.images and case.label}
    wanted = _wanted(failures, sorted(files))
    scores = {failure.case: failure for failure in failures}
    shown: list[dict[str, Any]] = []
    size = 0
    for name, group in progress(wanted, "pictures", len(wanted), name=lambda pair: pair[0]):
        prediction = None if best is None else best.run.prediction(name, sources.dataset.file_ending)
        try:
            view = view_case(files.get(name, CaseFiles(name, ())), prediction, labels, axis)
        except (DatasetError, ImageFileError) as error:
            log.warning("%s is not shown: %s", name, error)
            continue
        size += len(json.dumps(view))
        if size > PICTURE_BYTES and shown:
            log.info("%s and what follows is not shown, to keep the file small", name)
            break
        score = scores.get(name)
        facts = {"name": name, "group": group, "dice": score and score.dice, "classes": score and score.classes}
        shown.append({**facts, **view})
    order = ("worst", "median", "best", "example")
    ordered = sorted(shown, key=lambda case: order.index(case["group"]))
    return {"cases": ordered, "colours": _colours(sources.plan)}


def _wanted(failures: Sequence[Failure], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return case and group of what to show, by importance; `failures` come worst first."""
    ranked = [failure.case for failure in failures]
    if not ranked:
        return [(name, "example") for name in overlay.spread(names, EXAMPLES)]
    middle = max(0, (len(ranked) - MEDIAN) // 2)
    groups = dict.fromkeys(ranked[-BEST:], "best")
    groups |= dict.fromkeys(ranked[middle : middle + MEDIAN], "median")
    groups |= dict.fromkeys(ranked[: min(WORST, max(1, len(ranked) - MEDIAN - BEST))], "worst")
    return sorted(groups.items(), key=lambda pair: (pair[1] == "best", pair[1] == "median", ranked.index(pair[0])))


def _figure(value: float | None, metric: str = "Dice") -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if metric in ("HD95", "ASSD") else f"{value:.3f}"


def _breakable(name: str) -> Markup:
    """Return the name of a run, in which lines may break between words."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _interval(interval: Interval, metric: str = "Dice") -> str:
    if interval.low is None:
        return ""
    return f"{_figure(interval.low, metric)}–{_figure(interval.high, metric)}"
