"""A training step of the cnn head: on cached embeddings, and with the encoder in the loop as published code trains."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from autosam_net.embedding import cache
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import embed_case
from autosam_net.embedding.key import embedding_key
from autosam_net.embedding.source import EncoderSource, encode_inputs
from autosam_net.heads.head import build_head
from autosam_net.training.ahead import drawn_ahead
from autosam_net.training.batches import Batch, CachedBatches
from autosam_net.training.build import head_shape
from autosam_net.training.losses import SegmentationLoss
from autosam_net.training.slices import cut_batch
from benchmarks.encoder import published_encoder, real_slices
from benchmarks.measuring import Row, Setting

GOALS = {"the published encoder in the loop": ">= 30", "our encoder in the loop": ">= 10"}


def measure(setting: Setting) -> list[Row]:
    """Return the time of a step, of which an epoch has a fixed number, of its parts, and the rate of the cache."""
    plan = setting.plan
    source, settings = EncoderSource(plan.encoding, "cpu"), plan.configuration("cnn")
    entries = embedded(setting, source)
    batches = CachedBatches(entries, plan.label_set, settings.crop)
    whole, rng = CachedBatches(entries, plan.label_set), np.random.default_rng(0)
    loss_of, step = _training(setting, source)
    images, published = real_slices(setting, plan.encoding.input_size, settings.batch_size), published_encoder()
    draw = functools.partial(_drawn, batches, settings.batch_size)
    fixed = draw(0)

    def encoded(encoder: nn.Module) -> Batch:
        with torch.no_grad():
            embeddings = torch.cat([encode_inputs(encoder, image[None], plan.encoding) for image in images])
        labels = _drawn(whole, settings.batch_size, 0)[1]
        return cut_batch(rng, settings.crop, embeddings, labels, plan.label_set.foreground_values)

    with closing(drawn_ahead(draw, 0)) as ahead:
        works = {
            "cached embeddings, drawn ahead": lambda: step(*next(ahead)),
            "cached embeddings, drawn in turn": lambda: step(*draw(0)),
            "the published encoder in the loop": lambda: step(*encoded(published)),
            "our encoder in the loop": lambda: step(*encoded(source.encoder)),
            "reading the batch alone": lambda: draw(0),
            "forward pass and loss alone": lambda: loss_of(*fixed),
            "all but reading": lambda: step(*fixed),
        }
        times = setting.in_turn(works, rounds=3)
    cached, unit = times["cached embeddings, drawn ahead"], f"step of {settings.batch_size}"
    bytes_read = batches.entries[0].embedding.row(0).nbytes * settings.batch_size
    rate = bytes_read / times["reading the batch alone"] / 2**20
    rows = [
        Row(f"cnn, {name}", unit, seconds, seconds / cached, "of cached", GOALS.get(name, ""))
        for name, seconds in times.items()
    ]
    return [*rows, Row("the cache is read and turned into float32", ratio=rate, to="MiB/s")]


def _drawn(batches: CachedBatches, size: int, number: int) -> Batch:
    return batches.draw(np.random.default_rng(number), size)


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


def _training(
    setting: Setting, source: EncoderSource
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], None]]:
    """Return functions of a batch: the loss of a new head, and a whole step."""
    plan, settings = setting.plan, setting.plan.configuration("cnn")
    head = build_head("cnn", head_shape(plan), settings.settings, source.encoder.mask_decoder_weights).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate)
    loss_function = SegmentationLoss(plan.label_set)

    def loss_of(embedding: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=source.precision == "bfloat16"):
            logits = head(embedding)
        loss: Tensor = loss_function(logits, labels)
        return loss

    def step(embedding: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(embedding, labels).backward()
        optimizer.step()

    return loss_of, step
