"""Intensities end in [0, 1]."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.data.plan import Normalization
from autosam_net.errors import UsageError
from autosam_net.preprocessing.normalization import NORMALIZATIONS, normalize

SETTINGS = {"ct": (-100.0, 300.0), "percentile": (0.5, 99.5), "eight_bit": (0.0, 0.0), "min_max": (0.0, 0.0)}


@pytest.mark.parametrize("name", NORMALIZATIONS.names())
@given(scale=st.floats(1e-3, 1e6), offset=st.floats(-1e5, 1e5))
def test_every_normalisation_ends_in_the_unit_range(name: str, scale: float, offset: float) -> None:
    channel = np.random.default_rng(0).normal(offset, scale, (2, 5, 5))
    result = normalize(channel, Normalization(name, *SETTINGS.get(name, (0.0, 1.0))))
    assert result.dtype == np.float32
    assert result.shape == channel.shape
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("name", ["percentile", "min_max"])
def test_per_image_normalisation_ignores_scale_and_offset(name: str) -> None:
    channel = np.random.default_rng(0).random((3, 20, 20))
    settings = Normalization(name, 0.5, 99.5)
    np.testing.assert_allclose(normalize(channel, settings), normalize(1.7e6 * channel + 300, settings), atol=1e-5)


def test_ct_window_is_fixed() -> None:
    channel = np.array([-1000.0, -100.0, 100.0, 300.0, 2000.0]).reshape(1, 1, 5)
    np.testing.assert_allclose(normalize(channel, Normalization("ct", -100.0, 300.0))[0, 0], [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("name", ["percentile", "min_max"])
def test_a_constant_image_becomes_zero(name: str) -> None:
    assert not normalize(np.full((1, 4, 4), 7.0), Normalization(name, 0.5, 99.5)).any()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown normalisation 'percentil'; did you mean 'percentile'"):
        normalize(np.zeros((1, 2, 2)), Normalization("percentil"))
