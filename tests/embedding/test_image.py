"""The embeddings of one image: one a slice, the same from file and array, of square pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autosam_net.data.volume import volume_of
from autosam_net.embedding.image import embed_image
from autosam_net.encoders.encoder import Encoder, load_encoder
from autosam_net.errors import DatasetError
from tests.support import TINY, write_nifti


@pytest.fixture(scope="module")
def encoder(tiny_weights: Path) -> Encoder:
    return load_encoder(TINY, weights=tiny_weights)


def test_one_row_a_slice_from_file_volume_and_array(encoder: Encoder, tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((6, 50, 80)).astype(np.float32)
    write_nifti(tmp_path / "scan.nii.gz", array, (5.0, 1.0, 1.0))
    spacing = (5.0, 1.0, 1.0)
    embeddings = embed_image(array, encoder, spacing)
    assert embeddings.shape == (6, 32, 16, 16) and embeddings.dtype == np.float32
    for image in (tmp_path / "scan.nii.gz", str(tmp_path / "scan.nii.gz"), volume_of(array, spacing)):
        np.testing.assert_array_equal(embed_image(image, encoder), embeddings)


def test_neither_scale_nor_size_matter(encoder: Encoder) -> None:
    plane = np.zeros((32, 32))
    plane[8:24, 8:16] = 1.0
    once = embed_image(plane, encoder, (1.0, 1.0))
    assert once.shape == (1, 32, 16, 16)
    np.testing.assert_array_equal(embed_image(plane, encoder, (3.0, 3.0)), once)
    np.testing.assert_allclose(embed_image(1000 * plane - 7, encoder, (1.0, 1.0)), once, atol=1e-5)


def test_pixels_become_square_and_the_slice_is_centred(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(encoder.network, "forward", lambda images: seen.append(images) or torch.zeros(1, 32, 16, 16))
    embed_image(1.0 + np.indices((3, 20, 20)).sum(0), encoder, (1.0, 2.0))  # (C, Y, X)
    (images,) = seen
    assert images.shape == (1, 3, 64, 64)
    assert not images[:, :, :16].any() and not images[:, :, 48:].any()
    assert images[:, :, 17:48].float().mean(dim=(0, 1, 3)).diff().min() > 0  # brighter from row to row


def test_other_channels_and_numbers_are_refused(encoder: Encoder) -> None:
    with pytest.raises(DatasetError, match="2 channels, expected one or three"):
        embed_image(np.zeros((2, 3, 8, 8)), encoder, (1, 1, 1))
    with pytest.raises(DatasetError, match="NaN or infinite"):
        embed_image(np.full((8, 8), np.nan), encoder, (1, 1))
