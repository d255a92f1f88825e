"""The encoding of a grid is SAM's, and is kept only where it stays the same."""

from __future__ import annotations

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom

from autosam_net.heads.positions import encode_grid


def new_layer(seed: int) -> PositionEmbeddingRandom:
    torch.manual_seed(seed)
    return PositionEmbeddingRandom(16)


def test_a_grid_is_encoded_as_by_sam() -> None:
    for seed in (0, 1):
        layer = new_layer(seed)
        for height, width in ((6, 9), (9, 6)):
            found = encode_grid(height, width, layer.positional_encoding_gaussian_matrix, torch.float32)
            torch.testing.assert_close(found, layer((height, width))[None], rtol=1e-5, atol=1e-5)


def test_it_is_computed_once_and_follows_the_matrix() -> None:
    matrix = new_layer(2).positional_encoding_gaussian_matrix
    first = encode_grid(4, 4, matrix, torch.float32)
    assert encode_grid(4, 4, matrix.clone(), torch.float32) is first  # another fold's, of the same checkpoint
    matrix.mul_(2)  # as load_state_dict writes into it
    assert not torch.equal(encode_grid(4, 4, matrix, torch.float32), first)


def test_what_was_kept_without_gradients_serves_with_them() -> None:
    matrix = new_layer(3).positional_encoding_gaussian_matrix
    with torch.inference_mode():
        encode_grid(4, 4, matrix, torch.float32)
    weights = torch.ones(1, requires_grad=True)
    (weights * encode_grid(4, 4, matrix, torch.float32)).square().sum().backward()
    assert weights.grad is not None and weights.grad.item() > 0


def test_autocast_does_not_round_the_angles() -> None:
    matrix = new_layer(4).positional_encoding_gaussian_matrix
    with torch.autocast("cpu", torch.bfloat16):
        found = encode_grid(5, 5, matrix, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, encode_grid(5, 5, matrix, torch.float32).bfloat16())
