"""A training step of the cnn head: on cached embeddings, and with the encoder in the loop as published code trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from autosam_net.embedding import cache
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import EncoderSource, embed_case
from autosam_net.embedding.key import embedding_key
from autosam_net.heads.head import build_head
from autosam_net.training.batches import CachedBatches
from autosam_net.training.build import head_shape
from autosam_net.training.losses import SegmentationLoss
from benchmarks.encoder import published_encoder, real_slices
from benchmarks.measuring import Row, Setting


def measure(setting: Setting) -> list[Row]:
    """Return the time of a step, of which an epoch has a fixed number, and the rate at which the cache is read."""
    plan = setting.plan
    source = EncoderSource(plan.encoding, "cpu")
    batches = CachedBatches(embedded(setting, source), plan.label_set)
    settings = plan.configuration("cnn")
    step = _stepper(setting, source)
    images, published = real_slices(setting, plan.encoding.input_size, settings.batch_size), published_encoder()

    def drawn() -> tuple[Tensor, Tensor]:
        return batches.draw(np.random.default_rng(0), settings.batch_size)

    def encoded(encoder: nn.Module) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return torch.cat([encoder(image[None]) for image in images]), drawn()[1]

    times = setting.in_turn(
        {
            "cached embeddings": lambda: step(*drawn()),
            "the published encoder in the loop": lambda: step(*encoded(published)),
            "our encoder in the loop": lambda: step(*encoded(source.encoder)),
            "reading the batch alone": drawn,
        },
        rounds=3,
    )
    cached = times["cached embeddings"]
    goals = {"the published encoder in the loop": ">= 30", "our encoder in the loop": ">= 10"}
    return [
        Row(
            f"cnn, {name}",
            f"step of {settings.batch_size}",
            seconds,
            seconds / cached,
            "of cached",
            goals.get(name, ""),
        )
        for name, seconds in times.items()
    ]


def embedded(setting: Setting, source: EncoderSource) -> list[CachedEmbedding]:
    """Return the plain views of the cases, encoded into the scratch folder."""
    entries = []
    for case in setting.loaded_cases():
        case = dataclasses.replace(case, image=case.image[:, :4], labels=case.labels[:4])
        properties = dataclasses.replace(case.properties, shape=(4, *case.properties.shape[1:]))
        case = dataclasses.replace(case, properties=properties)
        key = embedding_key(properties.name, "benchmark", source.encoding, source.precision, 0, "plain")
        embed_case(setting.scratch, key, case, source, 0)
        entry = cache.open_entry(setting.scratch, key)
        assert entry is not None, "it was just written"
        entries.append(entry)
    return entries


def _stepper(setting: Setting, source: EncoderSource) -> Callable[[Tensor, Tensor], None]:
    plan, settings = setting.plan, setting.plan.configuration("cnn")
    head = build_head("cnn", head_shape(plan), settings.settings, source.encoder.mask_decoder_weights).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate)
    loss_function = SegmentationLoss(plan.label_set)

    def step(embedding: Tensor, labels: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=source.precision == "bfloat16"):
            logits = head(embedding)
        optimizer.zero_grad(set_to_none=True)
        loss_function(logits, labels).backward()
        optimizer.step()

    return step
