from __future__ import annotations

from dataclasses import replace

import pytest

from planning.channel_kinds import channel_kinds
from tests.planning.figures import intensities

HOUNSFIELD = intensities(-1024, 2000)
PLAIN = intensities(0, 1700.5, integer=False)
COLOUR = intensities(0, 255)


@pytest.mark.parametrize("name", ["CT", "ct", "ct_scan", "CT ", "abdomen-CT"])
def test_ct_by_name(name: str) -> None:
    ((kind, why),) = channel_kinds((name,), [[PLAIN]], ".nii.gz")
    assert kind == "ct"
    assert name in why


@pytest.mark.parametrize("name", ["MRI", "ctx", "detector", "dct"])
def test_no_ct_by_name(name: str) -> None:
    assert channel_kinds((name,), [[PLAIN]], ".nii.gz")[0][0] == "other"


def test_ct_by_hounsfield_units() -> None:
    ((kind, why),) = channel_kinds(("image",), [[HOUNSFIELD], [HOUNSFIELD]], ".nii.gz")
    assert kind == "ct"
    assert "-1024 to 2000" in why


@pytest.mark.parametrize(
    ("name", "stats"),
    [
        ("MRI", HOUNSFIELD),
        ("image", replace(HOUNSFIELD, integer=False)),
        ("image", replace(HOUNSFIELD, minimum=-100.0)),
        ("image", replace(HOUNSFIELD, maximum=300.0)),
    ],
)
def test_no_ct_by_values(name: str, stats: object) -> None:
    assert channel_kinds((name,), [[stats]], ".nii.gz")[0][0] == "other"


@pytest.mark.parametrize(("names", "ending"), [(("R", "G", "B"), ".nii.gz"), (("a", "b", "c"), ".png")])
def test_colour_by_name_or_by_file(names: tuple[str, ...], ending: str) -> None:
    assert [kind for kind, _ in channel_kinds(names, [[COLOUR] * 3], ending)] == ["rgb"] * 3


@pytest.mark.parametrize(
    ("names", "stats", "ending"),
    [
        (("T1", "T2", "FLAIR"), COLOUR, ".nii.gz"),
        (("R", "G", "B"), intensities(0, 4095), ".png"),
        (("R", "G", "B"), replace(COLOUR, integer=False), ".tif"),
    ],
)
def test_no_colour(names: tuple[str, ...], stats: object, ending: str) -> None:
    assert [kind for kind, _ in channel_kinds(names, [[stats] * 3], ending)] == ["other"] * 3
