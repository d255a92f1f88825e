from __future__ import annotations

import torch

from autosam_net.heads.head import HeadShape, build_head


def test_it_is_a_linear_classifier_of_the_normalised_embedding() -> None:
    head = build_head("linear", HeadShape(4, 256, 4, 16), {}, {}).eval()
    assert sum(parameter.numel() for parameter in head.parameters()) == 2 * 256 + 257 * 4
    embedding = torch.randn(1, 256, 4, 4)
    assert torch.allclose(head(3 * embedding + 1), head(embedding), atol=1e-3)
