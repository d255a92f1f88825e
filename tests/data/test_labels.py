from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autosam_net.data.labels import LabelSet
from autosam_net.errors import DatasetError

CLASSES = LabelSet({"background": 0, "edema": 2, "core": 1, "ignore": 3})
REGIONS = LabelSet({"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}, (1, 2, 3))


def test_classes_keep_the_order_of_their_declaration() -> None:
    assert CLASSES.targets == {"edema": (2,), "core": (1,)}
    assert (CLASSES.outputs, CLASSES.ignore, CLASSES.has_regions) == (3, 3, False)
    assert (CLASSES.foreground_values, CLASSES.allowed_values) == ((1, 2), (0, 1, 2, 3))


def test_regions_have_no_output_for_the_background() -> None:
    assert (REGIONS.outputs, REGIONS.ignore, REGIONS.has_regions) == (3, None, True)
    assert REGIONS.foreground_values == (1, 2, 3)


def test_decoding_paints_the_most_probable_class_by_its_value() -> None:
    probabilities = np.eye(3)[:, None, :]  # (3, 1, 3): background, edema, core
    assert CLASSES.decode(probabilities).tolist() == [[0, 2, 1]]


def test_decoding_paints_regions_in_order() -> None:
    probabilities = np.array([[0.9, 0.9, 0.9, 0.1], [0.1, 0.9, 0.9, 0.1], [0.1, 0.1, 0.9, 0.5]])
    assert REGIONS.decode(probabilities).tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
@given(probabilities=npst.arrays(np.float32, (3, 2, 4, 5), elements=st.floats(0, 1, width=32)))
def test_decoding_gives_allowed_values(labels: LabelSet, probabilities: np.ndarray) -> None:
    decoded = labels.decode(probabilities)
    assert decoded.dtype == np.uint8
    assert set(np.unique(decoded).tolist()) <= set(labels.allowed_values)


def test_many_labels_need_sixteen_bits() -> None:
    many = LabelSet({"background": 0, **{f"label {value}": value for value in range(1, 300)}})
    assert many.decode(np.eye(300)[:, -1:]).tolist() == [299]


@pytest.mark.parametrize(
    ("values", "order", "message"),
    [
        ({"heart": 1}, None, "labels must contain 'background': 0, found None. Add it."),
        ({"background": 1, "heart": 0}, None, "labels must contain 'background': 0, found 1"),
        ({"background": 0, "heart": 255}, None, r"consecutive from 0, found \[0, 255\]. Renumber them."),
        ({"background": 0}, None, "names no foreground class. Add at least one."),
        (
            {"background": 0, "ignore": 1, "heart": 2},
            None,
            r"'ignore' must be a single value, the highest \(2\)",
        ),
        (
            {"background": 0, "both": (1, 2)},
            None,
            r"\(both\) need 'regions_class_order' with 1 values, found None",
        ),
        ({"background": 0, "both": (1, 2), "one": 1}, (1,), "with 2 values, found "),
    ],
)
def test_a_bad_declaration_is_refused(
    values: dict[str, int | tuple[int, ...]], order: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"dataset.json: .*{message}"):
        LabelSet(values, order)
