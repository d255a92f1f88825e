"""Learning from unlabelled cases: which are chosen, what disturbs their embeddings, and what pseudo-labels teach."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.data.encoding import PLAIN
from autosam_net.data.labels import LabelSet
from autosam_net.embedding.embed import embed_poses
from autosam_net.embedding.poses import put
from autosam_net.errors import UsageError
from autosam_net.heads.head import HeadShape, build_head
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from autosam_net.preprocessing.slices import tile_grid
from autosam_net.training.cases import choose_unlabelled, training_split, unlabelled_part
from autosam_net.training.losses import SegmentationLoss
from autosam_net.training.run import TrainingOptions
from autosam_net.training.unlabelled import (
    PseudoLabelledBatches,
    PseudoLabelledCase,
    paste,
    unknown_value,
    unlabelled_loss,
)
from tests.support import Prepared

CLASSES = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))


def head_of(labels: LabelSet) -> nn.Module:
    torch.manual_seed(0)
    return build_head("cnn", HeadShape(labels.outputs, 32, 4, 64), {"width": 16.0}, {})


@pytest.mark.parametrize("seed", range(5))
def test_pasting_moves_rectangles_between_images_alike_in_all_maps(seed: int) -> None:
    origin = torch.arange(6.0).view(6, 1, 1, 1)
    coarse, fine = origin.expand(6, 3, 8, 8), origin.expand(6, 1, 32, 32)
    moved, moved_fine = paste(np.random.default_rng(seed), coarse, fine)
    assert torch.equal(moved.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :1], moved_fine)
    for image, result in enumerate(moved[:, 0]):
        foreign = result != image
        assert len(result[foreign].unique()) <= 1
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns[None])  # a rectangle
        assert foreign.float().mean() < 0.7
    assert torch.equal(coarse, origin.expand(6, 3, 8, 8))


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_unknown_pixels_teach_nothing_and_known_ones_do(labels: LabelSet) -> None:
    head, loss_function = head_of(labels).train(), SegmentationLoss(labels)
    embedding = torch.randn(4, 32, 16, 16)

    def loss(value: int) -> torch.Tensor:
        maps = torch.full((4, 64, 64), value)
        return unlabelled_loss(head, embedding, maps, loss_function, np.random.default_rng(0), False, 32)

    loss(unknown_value(labels)).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in head.parameters())
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        current = loss(2)
        current.backward()
        optimizer.step()
        losses.append(current.item())
    assert losses[-1] < 0.6 * losses[0]


def test_folded_pixels_are_never_dropped() -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, embedding: torch.Tensor) -> torch.Tensor:
            seen.append(embedding)
            return embedding.mean(1, keepdim=True).repeat(1, 3, 4, 4)

    embedding, labels = torch.rand(8, 32 + 16, 16, 16) + 1, torch.zeros(8, 64, 64, dtype=torch.long)
    unlabelled_loss(Watching(), embedding, labels, SegmentationLoss(CLASSES), np.random.default_rng(0), False, 32)
    assert (seen[0][:, :32] == 0).any()
    assert (seen[0][:, 32:] > 0).all()


class Enlarging(nn.Module):
    """A head that registers nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(32, 3, 1)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.classify(embedding), (64, 64), mode="bilinear")


@pytest.mark.parametrize("name", ["linear", "unet", "of a third party"])
def test_every_kind_of_head_can_learn_from_pseudo_labels(name: str) -> None:
    stride, channels = (1, 3) if name == "unet" else (4, 32)
    shape = HeadShape(CLASSES.outputs, channels, stride, 64)
    head = Enlarging() if name == "of a third party" else build_head(name, shape, {}, {})
    embedding, labels = torch.randn(2, channels, 64 // stride, 64 // stride), torch.randint(0, 4, (2, 64, 64))
    loss = unlabelled_loss(
        head, embedding, labels, SegmentationLoss(CLASSES), np.random.default_rng(0), False, channels
    )
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_batches_give_pseudo_labels_in_the_pose_of_their_embedding_and_never_read_labels(prepared: Prepared) -> None:
    plan, folders = prepared.plan, prepared.folders
    name = training_split(prepared.dataset, "0", TrainingOptions(), folders).train[0]
    poses = (PLAIN, "turn_90")
    (entries,) = embed_poses(prepared.dataset, plan, folders, [name], poses, "cpu")
    shape = load_case(cases_folder(prepared.dataset, folders) / name).properties.shape
    blind = {pose: replace(entry, labels=None, present=()) for pose, entry in entries.items()}  # type: ignore[arg-type]
    maps = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    case = PseudoLabelledCase(blind, maps, tile_grid(shape[1:], plan.encoding))
    batches = PseudoLabelledBatches([case], unknown=9)
    embeddings, labels = batches.draw(np.random.default_rng(1), 12)
    assert embeddings.dtype == torch.float32 and labels.dtype == torch.int64
    size, tiles = plan.encoding.input_size, len(case.grid.origins)
    assert labels.shape == (12, size, size)
    assert embeddings.shape == (12, *entries[PLAIN].embedding.shape[1:])
    stored = {
        entries[pose].embedding.row(row).astype(np.float32).tobytes(): (pose, row)
        for pose in poses
        for row in range(shape[0] * tiles)
    }
    plain = PseudoLabelledBatches([replace(case, entries={PLAIN: blind[PLAIN]})], unknown=9)
    drawn = [stored[embedding.numpy().tobytes()] for embedding in embeddings]
    assert {pose for pose, _ in drawn} == set(poses)
    by_row = {}
    while len(by_row) < shape[0] * tiles:
        some, upright = plain.draw(np.random.default_rng(len(by_row)), 40)
        by_row |= {stored[one.numpy().tobytes()][1]: other.numpy() for one, other in zip(some, upright, strict=True)}
    for (pose, row), found in zip(drawn, labels, strict=True):
        np.testing.assert_array_equal(found.numpy(), put(by_row[row], pose))


def test_every_patient_has_a_turn_before_any_has_a_second_within_the_budget() -> None:
    inputs = {f"{patient}_{frame}": 10 for patient in "abcdef" for frame in range(3)}
    patients = {case: case[0] for case in inputs}
    for seed in range(3):
        chosen = choose_unlabelled(inputs, patients, 60, seed)
        assert sorted(patients[case] for case in chosen) == list("abcdef")
        assert {patients[case] for case in choose_unlabelled(inputs, patients, 95, seed)} == set("abcdef")
        assert len(choose_unlabelled(inputs, patients, 95, seed)) == 9
    assert choose_unlabelled(inputs, patients, 10**6, 0) == tuple(sorted(inputs))
    assert len(choose_unlabelled(inputs, patients, 1, 0)) == 1
    assert choose_unlabelled(inputs, patients, 60, 0) != choose_unlabelled(inputs, patients, 60, 1)


def test_scans_of_held_out_patients_are_left_out(prepared: Prepared, tmp_path: Path) -> None:
    dataset = replace(prepared.dataset, folder=tmp_path)
    folders = replace(prepared.folders, preprocessed=tmp_path / "preprocessed")
    shutil.copytree(prepared.folders.preprocessed, folders.preprocessed, ignore=shutil.ignore_patterns("embeddings"))
    (held_out, *_) = training_split(dataset, "0", TrainingOptions(), folders).val
    (tmp_path / "imagesUn").mkdir()
    names = ["patient099_frame01", held_out.replace("frame01", "frame09")]
    for name in names:
        (tmp_path / "imagesUn" / f"{name}_0000{dataset.file_ending}").touch()
        shutil.copytree(cases_folder(dataset, folders) / held_out, cases_folder(dataset, folders) / name)
    options = TrainingOptions(unlabelled=True)
    assert options.run_name("cnn") == "cnn_unlabelled"
    assert unlabelled_part(dataset, prepared.plan, "0", options, folders) == ("patient099_frame01",)
    assert set(unlabelled_part(dataset, prepared.plan, "all", options, folders)) == set(names)


def test_without_patients_left_unlabelled_the_flag_is_refused(prepared: Prepared) -> None:
    for fold in ("0", "all"):
        with pytest.raises(
            UsageError, match="--unlabelled: all patients of this fold are labelled, and there is no sc"
        ):
            unlabelled_part(prepared.dataset, prepared.plan, fold, TrainingOptions(unlabelled=True), prepared.folders)
    assert unlabelled_part(prepared.dataset, prepared.plan, "0", TrainingOptions(labelled=1), prepared.folders) == ()
