from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder
from torch import Tensor, nn

from autosam_net.errors import WeightsError
from autosam_net.heads.head import HeadShape, build_head

SHAPE = HeadShape(4, 256, 4, 64)
TOKENS = "mask_decoder.mask_tokens.weight"


def new_head(weights: dict[str, Tensor], shape: HeadShape = SHAPE, **settings: float) -> nn.Module:
    torch.manual_seed(0)
    return build_head("vit", shape, settings, weights).eval()


def test_it_starts_from_the_checkpoint(decoder_weights: dict[str, Tensor]) -> None:
    head = new_head(decoder_weights, HeadShape(6, 256, 4, 64), token_noise=0.0).state_dict()
    for name in ("transformer.", "output_upscaling."):
        theirs = {key for key in decoder_weights if key.startswith(f"mask_decoder.{name}")}
        assert len(theirs) > 5
        assert all(torch.equal(head[key.removeprefix("mask_decoder.")], decoder_weights[key]) for key in theirs)
    for index in range(6):
        assert torch.equal(head["class_tokens"][index], decoder_weights[TOKENS][index % 4])
        own = {key for key in head if key.startswith(f"filters.{index}.")}
        prefix = f"mask_decoder.output_hypernetworks_mlps.{index % 4}."
        assert all(torch.equal(head[key], decoder_weights[key.replace(f"filters.{index}.", prefix)]) for key in own)
    assert torch.equal(head["no_mask"], decoder_weights["prompt_encoder.no_mask_embed.weight"])
    matrix = "positional_encoding_gaussian_matrix"
    assert torch.equal(head[f"position.{matrix}"], decoder_weights[f"prompt_encoder.pe_layer.{matrix}"])


def test_it_computes_what_sams_decoder_does_without_the_iou_token(
    decoder: MaskDecoder, decoder_weights: dict[str, Tensor]
) -> None:
    """SAM's decoder with no prompt and its quality token left out gives the same four masks."""
    head = new_head(decoder_weights, token_noise=0.0)
    embedding = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = PromptEncoder(256, (16, 16), (64, 64), 16)
    prompts.pe_layer.positional_encoding_gaussian_matrix = head.position.positional_encoding_gaussian_matrix
    source = embedding + decoder_weights["prompt_encoder.no_mask_embed.weight"].view(1, 256, 1, 1)
    with torch.no_grad():
        tokens, image = decoder.transformer(source, prompts.get_dense_pe(), decoder.mask_tokens.weight[None])
        image = decoder.output_upscaling(image.transpose(1, 2).view(1, 256, 16, 16))
        filters = torch.stack([decoder.output_hypernetworks_mlps[i](tokens[:, i]) for i in range(4)], dim=1)
        expected = torch.einsum("bkc,bchw->bkhw", filters, image)
        assert torch.allclose(head(embedding), expected, atol=1e-4)


def test_noise_parts_classes_that_start_from_the_same_token(decoder_weights: dict[str, Tensor]) -> None:
    tokens = new_head(decoder_weights, HeadShape(5, 256, 4, 64)).class_tokens
    assert not torch.equal(tokens[0], tokens[4])
    assert torch.allclose(tokens[0], tokens[4], atol=0.2)


def test_a_checkpoint_without_a_decoder_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"'vit' needs an encoder of 256 channels .* found no mask_decoder"):
        new_head({})


def test_an_embedding_of_another_width_is_refused(decoder_weights: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"found 64 channels. Choose the head cnn or linear"):
        new_head(decoder_weights, HeadShape(4, 64, 4, 64))


def test_a_decoder_of_another_layout_is_refused(decoder_weights: dict[str, Tensor]) -> None:
    weights = {key: value for key, value in decoder_weights.items() if "norm_final_attn" not in key}
    with pytest.raises(WeightsError, match=r"mask decoder is not SAM's \(.*norm_final_attn"):
        new_head(weights)


def test_positions_move_in_training_only(decoder_weights: dict[str, Tensor]) -> None:
    head = new_head(decoder_weights, dropout=0.0)
    embedding = torch.randn(2, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        still = head(embedding)
        assert torch.equal(head(embedding), still)
        assert not torch.allclose(head.train()(embedding), still)
        assert torch.equal(head.eval()(embedding), still)
