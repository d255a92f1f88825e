from __future__ import annotations

from dataclasses import replace

import pytest

from autosam_net.data.configuration import Tuning
from planning.estimate_costs import estimate_costs, rounded
from planning.machine import TunedProbe
from planning.make_plan import make_plan
from tests.planning.figures import case, dataset, fingerprint, machine, probe


def figures(count: int) -> object:
    return fingerprint(*(case(f"{index:03}", (10, 128, 128), (8.0, 2.0, 2.0)) for index in range(count)))


def test_costs_grow_with_the_data() -> None:
    few, many = (make_plan(dataset(), figures(count), probe()).estimates for count in (10, 100))
    for step in ("preprocess", "encode", "train:cnn"):
        assert many[step].seconds > few[step].seconds
    assert many["encode"].disk_mib > few["encode"].disk_mib
    assert many["predict"] == few["predict"]


def test_the_encoder_runs_once_for_every_view() -> None:
    plan = make_plan(dataset(), figures(10), probe(seconds=0.5))
    found = estimate_costs(plan, figures(10), probe(seconds=0.5))["encode"]
    assert found.seconds == rounded((80 * 12 + 20 * 4) * 0.5)
    plain = replace(plan, encoding=replace(plan.encoding, maximum_views=1))
    assert estimate_costs(plain, figures(10), probe(seconds=0.5))["encode"].seconds == 80.0


def test_views_without_an_encoder_cost_disk_only() -> None:
    estimates = make_plan(dataset(), figures(10), probe()).estimates
    assert estimates["train:unet"].seconds == estimates["train:linear"].seconds
    assert estimates["train:cnn"].disk_mib < estimates["train:unet"].disk_mib < estimates["encode"].disk_mib


def test_training_follows_an_edited_configuration() -> None:
    plan = make_plan(dataset(), figures(10), probe())
    longer = replace(plan.configurations["cnn"], epochs=100, batch_size=16)
    edited = replace(plan, configurations={"cnn_long": longer})
    cost = estimate_costs(edited, figures(10), probe())["train:cnn_long"]
    assert cost.seconds == pytest.approx(100 * 50 * 0.4 * 2, rel=0.05)


@pytest.mark.parametrize(("value", "expected"), [(1.2345, 1.2), (0.0123, 0.012), (98765.0, 99000.0), (0.0, 0.0)])
def test_two_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected


def test_tuning_is_estimated_where_it_was_measured() -> None:
    tuned = TunedProbe(1.5, {"encoder+head:full": 3400.0, "encoder+head:lora": 3000.0})
    plan = make_plan(dataset(), figures(10), replace(probe(), tuned=tuned))
    cost = plan.estimates["tune:encoder+head:lora"]
    configuration = plan.configurations["cnn"].with_tuning(Tuning("encoder+head", "lora"))
    steps = configuration.epochs_for(80, 8) * configuration.iterations
    assert cost.seconds == pytest.approx(steps * 4 * 1.5, rel=0.05)
    assert (cost.memory_mib, plan.estimates["tune:encoder+head:full"].memory_mib) == (3000.0, 3400.0)
    assert not any(step.startswith("tune") for step in make_plan(dataset(), figures(10), probe()).estimates)


def test_the_memory_of_a_gpu_is_not_main_memory() -> None:
    tuned = TunedProbe(0.01, {"encoder+head:lora": 5000.0})
    on_gpu = replace(probe(machine("cuda")), tuned=tuned, gpu_memory_mib={"encode": 7000.0, "cnn": 3000.0})
    estimates = make_plan(dataset(), figures(10), on_gpu).estimates
    found = {step: (cost.memory_mib, cost.gpu_memory_mib) for step, cost in estimates.items()}
    assert found["encode"] == (900.0, 7000.0)
    assert found["train:cnn"] == (1200.0, 3000.0)
    assert found["tune:encoder+head:lora"] == (900.0, 5000.0)
    assert found["preprocess"][1] == 0.0
    main, gpu = found["predict"]
    assert main < 1000.0 and gpu == 7000.0
