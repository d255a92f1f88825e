from __future__ import annotations

import pytest

from autosam_net.errors import UsageError
from autosam_net.registry import Registry, suggest


@pytest.fixture
def animals() -> Registry[str]:
    registry: Registry[str] = Registry("animal")
    registry.register("horse")("neighs")
    registry.register("cow")("moos")
    return registry


def test_entries_keep_their_order(animals: Registry[str]) -> None:
    assert animals.names() == list(animals) == ["horse", "cow"]
    assert animals.get("cow") == "moos"
    assert "horse" in animals
    assert "house" not in animals


def test_a_decorator_returns_what_it_registers(animals: Registry[object]) -> None:
    @animals.register("crow")
    def caw() -> str:
        return "caw"

    assert caw() == "caw"
    assert animals.get("crow") is caw


def test_a_name_is_taken_once(animals: Registry[str]) -> None:
    with pytest.raises(ValueError, match="animal 'cow' is registered twice"):
        animals.register("cow")("lows")
    assert animals.get("cow") == "moos"


def test_unknown_names_get_a_suggestion(animals: Registry[str]) -> None:
    with pytest.raises(UsageError, match="unknown animal 'hors'; did you mean 'horse'"):
        animals.get("hors")
    with pytest.raises(UsageError, match="unknown animal 'zebra'; known: horse, cow"):
        animals.get("zebra")


def test_suggestion_from_nothing() -> None:
    assert suggest("a", []) == "known: none"
