"""Decide which plan holds: the one there is, edited or not, or a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.plan import Plan, load_plan, settings_digest
from autosam_net.errors import PlanError
from autosam_net.files import atomic_file, sha256_of_text
from autosam_net.jsonio import dumps, load
from planning.validate_plan import validate_plan

log = logging.getLogger("autosam_net.planning")


@dataclass(frozen=True)
class PlanOrigin:
    """What an automatic plan was made from, and its digest, by which an edit is seen."""

    source: str
    plan: str


@dataclass(frozen=True)
class PlanRequest:
    """What the user asked for.

    Attributes:
        encoder, weights: None where the planner may choose.
        replan: make the plan anew whatever there is.
    """

    encoder: str | None = None
    weights: Path | None = None
    replan: bool = False


def settle_plan(
    dataset: DatasetSpec,
    fingerprint: Fingerprint,
    folds: int | None,
    folder: Path,
    request: PlanRequest,
    make: Callable[[], Plan],
) -> Plan:
    """Return the plan that holds, written to `plan.json` in `folder`.

    A plan edited by hand is kept, validated; an automatic one is kept while the data set stays what it was.

    Args:
        folds: of splits that came with the data, if any.
        make: returns a new plan; called only where it is needed, since it measures the machine.

    Raises:
        PlanError: the plan there is has a wrong value, or contradicts what is asked for.
    """
    path, origin_path = folder / "plan.json", folder / "plan_origin.json"
    source = _source_of(dataset, fingerprint, folds)
    if path.is_file() and not request.replan:
        plan, origin = load_plan(path), _read_origin(origin_path)
        if origin is None or _digest(plan) != origin.plan:
            return _keep_edited(plan, dataset, path, request, changed=origin is None or origin.source != source)
        if origin.source == source and not _contradiction(plan, request):
            log.info("%s: kept, nothing has changed", path)
            return plan
        log.info("%s: made anew, since %s", path, _contradiction(plan, request) or "the data set has changed")
    plan = make()
    validate_plan(plan, dataset)
    _write_with_origin(path, plan, origin_path, PlanOrigin(source, _digest(plan)))
    return plan


def _write_with_origin(path: Path, plan: Plan, origin_path: Path, origin: PlanOrigin) -> None:
    """Write both files, never one beside an older one of the other: a plan without its origin counts as edited."""
    with atomic_file(path) as temporary:
        temporary.write_text(dumps(plan) + "\n", encoding="utf-8")
        with atomic_file(origin_path) as temporary_origin:
            temporary_origin.write_text(dumps(origin) + "\n", encoding="utf-8")
            path.unlink(missing_ok=True)


def _keep_edited(plan: Plan, dataset: DatasetSpec, path: Path, request: PlanRequest, changed: bool) -> Plan:
    if contradiction := _contradiction(plan, request):
        raise PlanError(f"{path}: edited by hand, and {contradiction}. Edit it again, or make it anew with --replan.")
    validate_plan(plan, dataset)
    also = "; the data set has changed since it was made" if changed else ""
    log.info("%s: edited by hand, so it is kept%s (--replan makes it anew)", path, also)
    return plan


def _contradiction(plan: Plan, request: PlanRequest) -> str:
    """Return in words what the user asked for and the plan has not; "" where there is nothing."""
    encoding = plan.encoding
    if request.encoder is not None and request.encoder != encoding.encoder:
        return f"it names the encoder {encoding.encoder}, not {request.encoder}"
    if request.weights is not None and encoding.weights_file != request.weights.absolute():
        return f"it names the weights {encoding.weights}, not {request.weights}"
    return ""


def _source_of(dataset: DatasetSpec, fingerprint: Fingerprint, folds: int | None) -> str:
    labels = list(dataset.labels.values.items())  # their order counts
    return settings_digest(fingerprint, dataset.channel_names, labels, dataset.labels.regions_class_order, folds)


def _digest(plan: Plan) -> str:
    return sha256_of_text(dumps(plan))


def _read_origin(path: Path) -> PlanOrigin | None:
    return load(PlanOrigin, path) if path.is_file() else None
