"""Check a plan that may have been edited by hand against its data set: every wrong value is refused by name."""

from __future__ import annotations

import re
from typing import Any

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.plan import Plan
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import PlanError
from autosam_net.jsonio import to_json
from autosam_net.training.check_plan import check_configuration, check_plan, demand


def validate_plan(plan: Plan, dataset: DatasetSpec) -> None:
    """Refuse a plan that cannot be carried out on the data set; the heads are looked up, which loads torch.

    Raises:
        PlanError: names the key, the value found, what is expected and what to do.
    """
    _check_dataset(plan, dataset)
    check_plan(plan)
    encoding = plan.encoding
    has_weights = ENCODERS.get(encoding.encoder).weights is not None
    demand(has_weights, "plan.json: encoding: encoder", encoding.encoder, "one with weights")
    demand(not encoding.tuned, "plan.json: encoding: tuned", True, "false; give a configuration a tuning instead")
    if encoding.weights_file is not None:
        exists = encoding.weights_file.is_file()
        demand(exists, "plan.json: encoding: weights", encoding.weights, "a file that exists, or null")
    demand(bool(plan.configurations), "plan.json: configurations", "{}", "at least one")
    for name in plan.configurations:
        check_configuration(plan, name)
    demand(plan.folds >= 2, "plan.json: folds", plan.folds, "2 or more")
    if plan.group_pattern is not None:
        try:
            re.compile(plan.group_pattern)
        except re.error as error:
            raise PlanError(
                f"plan.json: group_pattern {plan.group_pattern!r} is no regular expression: {error}"
            ) from None


def _check_dataset(plan: Plan, dataset: DatasetSpec) -> None:
    pairs = (
        ("dataset", plan.dataset, dataset.name),
        ("channel_names", plan.channel_names, dataset.channel_names),
        ("labels", plan.labels, dataset.labels.values),
        ("regions_class_order", plan.regions_class_order, dataset.labels.regions_class_order),
        ("file_ending", plan.file_ending, dataset.file_ending),
    )
    for key, planned, given in pairs:
        if _ordered(planned) != _ordered(given):
            raise PlanError(
                f"plan.json: {key}: found {to_json(planned)}, but dataset.json says {to_json(given)}. "
                "Correct it, or make a new plan with --replan."
            )


def _ordered(value: Any) -> Any:
    data = to_json(value)
    return list(data.items()) if isinstance(data, dict) else data  # the order of labels is that of the outputs
