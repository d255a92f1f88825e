"""The encoder runs once: what is cached is not computed again."""

from __future__ import annotations

import copy
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autosam_net.data.encoding import Encoding
from autosam_net.embedding import embed
from autosam_net.embedding import source as source_module
from autosam_net.embedding.cache import entry_folder, list_entries
from autosam_net.embedding.embed import embed_dataset, embed_in_time, embeddings_folder, preprocessed_cases
from autosam_net.embedding.source import EncoderSource
from autosam_net.embedding.views import draw_view, view_seed
from autosam_net.errors import PlanError
from autosam_net.files import alone
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.slices import count_inputs, rgb_inputs, tile_grid
from tests.support import Prepared, copied, with_unet


def test_embeddings_are_the_encoders_output_for_every_tile(prepared: Prepared) -> None:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[0]
    (entry,) = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [name])
    case = load_case(cases_folder(prepared.dataset, prepared.folders) / name)
    count = count_inputs(case.properties.shape, prepared.plan.encoding)
    assert count > case.properties.shape[0], "the phantom's slices are tiled"
    grid = tile_grid(case.properties.shape[1:], prepared.plan.encoding)
    inputs = rgb_inputs(case.image, grid, prepared.plan.encoding.rgb, range(count))
    direct = EncoderSource(prepared.plan.encoding, "cpu").encode(inputs)
    embedding = torch.from_numpy(entry.embedding.rows(range(count))).float()
    torch.testing.assert_close(embedding, direct, atol=5e-3, rtol=5e-3)


def test_the_embeddings_of_image_are_the_views_themselves(prepared: Prepared) -> None:
    plan = with_unet(prepared.plan).for_configuration("unet")
    name = preprocessed_cases(prepared.dataset, prepared.folders)[0]
    plain, view = embed_dataset(prepared.dataset, plan, prepared.folders, [name], views=2)
    case = load_case(cases_folder(prepared.dataset, prepared.folders) / name)
    count = count_inputs(case.properties.shape, plan.encoding)
    grid = tile_grid(case.properties.shape[1:], plan.encoding)
    inputs = rgb_inputs(case.image, grid, plan.encoding.rgb, range(count))
    np.testing.assert_array_equal(plain.embedding.rows(range(count)), inputs.astype(np.float16))
    drawn, labels = draw_view(inputs[0], plain.labels.row(0), view_seed(name, 0, 1), plan.encoding.rotation)
    np.testing.assert_array_equal(view.embedding.row(0), drawn.astype(np.float16))
    np.testing.assert_array_equal(view.labels.row(0), labels)


def test_views_drawn_by_several_processes_fill_the_cache_alike(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = with_unet(prepared.plan).for_configuration("unet")
    name, copy_of = preprocessed_cases(prepared.dataset, prepared.folders)[0], copied(prepared, tmp_path)
    _, alone = embed_dataset(prepared.dataset, plan, prepared.folders, [name], views=2)
    monkeypatch.setattr(embed, "drawing_processes", lambda _: 2)
    _, shared = embed_dataset(copy_of.dataset, plan, copy_of.folders, [name], views=2)
    assert shared.embedding.path != alone.embedding.path
    rows = range(len(alone.present))
    np.testing.assert_array_equal(shared.embedding.rows(rows), alone.embedding.rows(rows))
    np.testing.assert_array_equal(shared.labels.rows(rows), alone.labels.rows(rows))


def test_inputs_in_which_nothing_is_cost_one_pass_together(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    size, passes = prepared.plan.encoding.input_size, []
    inputs = np.zeros((5, 3, size, size), np.float32)
    inputs[[1, 3]] = np.random.default_rng(0).random((2, 3, size, size))
    expected = EncoderSource(prepared.plan.encoding, "cpu").encode(inputs[[0, 1, 2, 3]])
    source = EncoderSource(prepared.plan.encoding, "cpu")
    published = source_module.encode_inputs

    def counted(encoder: torch.nn.Module, images: torch.Tensor, encoding: Encoding) -> torch.Tensor:
        passes.append(len(images))
        return published(encoder, images, encoding)

    monkeypatch.setattr(source_module, "encode_inputs", counted)
    torch.testing.assert_close(source.encode(inputs)[:4], expected, atol=5e-3, rtol=5e-3)
    assert not np.array_equal(expected[0], expected[1])
    source.encode(inputs[[0, 2, 4]])
    assert sorted(passes) == [1, 2]


def test_a_second_call_never_loads_the_encoder(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    first = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, views=2)

    def refuse(*arguments: object) -> None:
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr(source_module, "load_encoder", refuse)
    second = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, views=2)
    assert [entry.key for entry in first] == [entry.key for entry in second]
    other = replace(prepared.plan, encoding=replace(prepared.plan.encoding, input_size=80))
    with pytest.raises(AssertionError, match="was loaded"):
        embed_dataset(prepared.dataset, other, prepared.folders)


def test_a_damaged_entry_is_computed_anew(prepared: Prepared) -> None:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[1]
    (entry,) = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [name])
    before = entry.embedding.rows(range(3))
    file = entry_folder(embeddings_folder(prepared.dataset, prepared.folders), entry.key) / "embedding.npy"
    del entry
    file.write_bytes(file.read_bytes()[:-1])
    (again,) = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [name])
    np.testing.assert_array_equal(again.embedding.rows(range(3)), before)


def test_leftovers_of_a_killed_run_are_removed(prepared: Prepared) -> None:
    name = preprocessed_cases(prepared.dataset, prepared.folders)[2]
    (entry,) = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [name])
    folder = entry_folder(embeddings_folder(prepared.dataset, prepared.folders), entry.key)
    folder.rename(folder.with_name(".writing-killed"))
    embed_dataset(prepared.dataset, prepared.plan, prepared.folders, [name])
    assert folder.is_dir()
    assert not list(folder.parent.glob(".writing-*"))


def test_what_another_process_has_made_meanwhile_is_taken(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_dataset(prepared.dataset, prepared.plan, prepared.folders)
    monkeypatch.setattr(embed, "_open_or_forget", lambda root, key: None)  # nothing is there at first
    monkeypatch.setattr(embed, "embed_case", lambda *_: pytest.fail("computed again"))
    entries = embed_dataset(prepared.dataset, prepared.plan, prepared.folders)
    assert len(entries) == len(preprocessed_cases(prepared.dataset, prepared.folders))


def test_what_another_process_has_in_hand_is_left_to_the_end(prepared: Prepared) -> None:
    names = preprocessed_cases(prepared.dataset, prepared.folders)[:3]
    root = embeddings_folder(prepared.dataset, prepared.folders)
    entries = embed_dataset(prepared.dataset, prepared.plan, prepared.folders, names)
    first, *others = (entry_folder(root, entry.key) for entry in entries)
    for folder in (first, *others):
        shutil.rmtree(folder)
    with ThreadPoolExecutor(1) as pool, alone(first):
        embedding = pool.submit(embed_dataset, prepared.dataset, prepared.plan, prepared.folders, names)
        deadline = time.monotonic() + 60
        while not all(folder.is_dir() for folder in others) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(folder.is_dir() for folder in others)
        assert not first.exists()
        assert not embedding.done()
    assert [entry.key for entry in embedding.result(timeout=60)] == [entry.key for entry in entries]


@pytest.mark.parametrize(
    ("cached", "until", "views"), [(0, -1, 1), (0, 29, 1), (0, 30, 2), (0, 99, 3), (1, 14, 1), (1, 15, 2)]
)
def test_a_view_is_made_only_where_it_is_likely_to_be_ready_in_time(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int, until: int, views: int
) -> None:
    place, now = copied(prepared, tmp_path), [0]
    names, root = preprocessed_cases(place.dataset, place.folders)[:3], embeddings_folder(place.dataset, place.folders)
    shutil.rmtree(root, ignore_errors=True)
    if cached:
        embed_dataset(place.dataset, place.plan, place.folders, names, cached)
    embed_case = embed.embed_case

    def five_seconds(*arguments: Any) -> None:
        now[0] += 5
        embed_case(*arguments)

    monkeypatch.setattr(embed, "embed_case", five_seconds)
    monkeypatch.setattr(embed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    entries, there = embed_in_time(place.dataset, place.plan, place.folders, names, 3, "cpu", until)
    assert there == views
    stored = {(entry.key.case, entry.key.view) for _, entry in list_entries(root) if entry is not None}
    assert {(name, view) for name in names for view in range(views)} <= stored
    assert [entry.key for entry in entries] == [
        entry.key for entry in embed_dataset(place.dataset, place.plan, place.folders, names, views)
    ]
    assert now[0] <= max(until, 15)


def test_a_head_that_predicts_in_several_poses_gets_a_turned_view_in_any_case(
    prepared: Prepared, tmp_path: Path
) -> None:
    place = copied(prepared, tmp_path)
    names = preprocessed_cases(place.dataset, place.folders)[:1]
    plan = replace(place.plan, encoding=replace(place.plan.encoding, poses=("turn_90",)))
    assert embed_in_time(place.dataset, plan, place.folders, names, 3, "cpu", -math.inf)[1] == 2


def test_a_case_that_was_not_preprocessed_is_named(prepared: Prepared) -> None:
    with pytest.raises(PlanError, match="patient99: not preprocessed"):
        embed_dataset(prepared.dataset, prepared.plan, prepared.folders, ["patient99"])


def test_a_batch_too_large_for_the_gpu_is_halved(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    source = EncoderSource(prepared.plan.encoding, "cpu")
    inputs = np.random.default_rng(0).random((7, 3, 64, 64), np.float32)
    whole, sizes = source.encode(inputs), []
    plain_forward = source.encoder.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain_forward(images)

    monkeypatch.setattr(source.encoder, "forward", forward)
    torch.testing.assert_close(source.encode(inputs), whole, atol=1e-2, rtol=1e-2)
    assert sizes[:2] == [7, 4] and max(sizes[2:]) <= 3
    monkeypatch.setattr(source.encoder, "forward", lambda images: forward(images.repeat(3, 1, 1, 1)))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        source.encode(inputs)


def test_a_source_travels_without_its_encoder_and_keeps_its_precision(prepared: Prepared) -> None:
    source = EncoderSource(prepared.plan.encoding, "cpu", "bfloat16")
    assert source.encoder is source.encoder
    there = copy.copy(source)  # as pickling does it
    assert there == source and "encoder" not in vars(there) and there.precision == "bfloat16"
