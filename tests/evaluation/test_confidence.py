"""What a prediction says of itself: entropy, disagreement and the confidences of its classes."""

from __future__ import annotations

import numpy as np
import pytest

from autosam_net.data.labels import LabelSet
from autosam_net.evaluation.confidence import ConfidenceTally, disagreement, entropy

CLASSES = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))


def softmax(seed: int, sharpness: float = 1.0) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(3, 6, 7))
    return (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


def sigmoids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 6, 7)).astype(np.float32)


@pytest.mark.parametrize(("labels", "even"), [(CLASSES, [1 / 3] * 3), (REGIONS, [0.5, 0.5])])
def test_entropy_goes_from_sure_to_knowing_nothing(labels: LabelSet, even: list[float]) -> None:
    sure = np.array([1.0, 0.0, 0.0][: len(even)], np.float32).reshape(-1, 1, 1)
    assert entropy(sure, labels) == pytest.approx(0, abs=1e-5)
    assert entropy(np.array(even, np.float32).reshape(-1, 1, 1), labels) == pytest.approx(1, abs=1e-5)
    for seed in range(3):
        drawn = softmax(seed) if labels is CLASSES else sigmoids(seed)
        assert ((entropy(drawn, labels) >= 0) & (entropy(drawn, labels) <= 1 + 1e-6)).all()


@pytest.mark.parametrize(("labels", "draw"), [(CLASSES, softmax), (REGIONS, sigmoids)])
def test_only_members_that_contradict_each_other_disagree(labels: LabelSet, draw) -> None:
    first, second = draw(0), draw(1)
    assert disagreement([first, first], labels) == pytest.approx(0, abs=1e-6)
    apart = disagreement([first, second], labels)
    assert (apart >= 0).all() and apart.mean() > 0.01
    assert (apart <= entropy((first + second) / 2, labels) + 1e-6).all()


def test_members_that_are_sure_of_opposites_disagree_most() -> None:
    one, other = (np.eye(3, dtype=np.float32)[index].reshape(3, 1, 1) for index in (0, 1))
    assert disagreement([one, other], CLASSES) == pytest.approx(np.log(2) / np.log(3), abs=1e-4)


@pytest.mark.parametrize(("labels", "draw"), [(CLASSES, softmax), (REGIONS, sigmoids)])
def test_confidences_do_not_depend_on_how_a_case_is_cut_into_slices(labels: LabelSet, draw) -> None:
    slices = [draw(seed) for seed in range(4)]
    whole, parts = ConfidenceTally(labels), ConfidenceTally(labels)
    whole.add(np.concatenate(slices, axis=1))
    for one in slices:
        parts.add(one)
    for name, one in whole.confidences().items():
        assert one is not None
        assert vars(parts.confidences()[name]) == pytest.approx(vars(one), rel=1e-5)


def test_large_slices_are_summed_to_rounding() -> None:
    """Rows are summed in float32, and rows in turn in float64."""
    probabilities = np.repeat(np.repeat(softmax(0), 200, axis=1), 100, axis=2)
    small, large = ConfidenceTally(CLASSES), ConfidenceTally(CLASSES)
    small.add(softmax(0))
    large.add(probabilities)
    for name, one in small.confidences().items():
        assert one is not None
        assert vars(large.confidences()[name]) == pytest.approx(vars(one), rel=1e-5)


def test_the_agreement_is_the_soft_dice_with_the_decided_pixels() -> None:
    probabilities = softmax(0)
    tally = ConfidenceTally(CLASSES)
    tally.add(probabilities)
    decided = np.argmax(probabilities, axis=0) == 1
    expected = 2 * probabilities[1][decided].sum() / (probabilities[1].sum() + decided.sum())
    found = tally.confidences()["a"]
    assert found is not None and found.agreement == pytest.approx(expected, rel=1e-5)
    assert found.certainty == pytest.approx(1 - entropy(probabilities, CLASSES)[decided].mean(), rel=1e-5)


def test_a_pixel_of_equal_probabilities_is_decided_for_the_first_class() -> None:
    tally = ConfidenceTally(CLASSES)
    tally.add(np.array([0.2, 0.4, 0.4], np.float32).reshape(3, 1, 1))
    assert tally.confidences()["a"] is not None and tally.confidences()["b"] is None


def test_surer_probabilities_have_more_confidence() -> None:
    found = []
    for sharpness in (1.0, 5.0):
        tally = ConfidenceTally(CLASSES)
        tally.add(softmax(0, sharpness))
        found.append(tally.confidences()["a"])
    assert found[1].agreement > found[0].agreement and found[1].certainty > found[0].certainty


def test_a_class_without_pixels_has_no_confidence() -> None:
    tally = ConfidenceTally(CLASSES)
    tally.add(np.eye(3, dtype=np.float32)[[1]].T.reshape(3, 1, 1))
    assert tally.confidences()["b"] is None and tally.confidences()["a"] is not None
