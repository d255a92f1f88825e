"""Learning from unlabelled cases: the teacher, what disturbs the embeddings, and the schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autosam_net.data.labels import LabelSet
from autosam_net.embedding.embed import embed_dataset
from autosam_net.errors import UsageError
from autosam_net.heads.head import HeadShape, build_head
from autosam_net.paths import Folders
from autosam_net.training import train
from autosam_net.training.consistency import (
    UnlabelledBatches,
    consistency_loss,
    follow,
    make_teacher,
    paste,
    teacher_weight,
)
from autosam_net.training.losses import SegmentationLoss
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head, training_split, unlabelled_part
from tests.support import Prepared

CLASSES = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))


@pytest.fixture
def folders(prepared: Prepared, tmp_path: Path) -> Folders:
    return replace(prepared.folders, results=tmp_path / "results")


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


def test_the_teacher_is_heard_only_when_it_knows_something() -> None:
    weights = [teacher_weight(iteration, 1800) for iteration in range(0, 1800, 100)]
    assert weights[:4] == [0, 0, 0, 0]
    assert weights[5:] == [1.0] * 13
    assert weights == sorted(weights)


def test_the_teacher_follows_slowly_and_takes_no_gradient() -> None:
    head = head_of(CLASSES)
    teacher = make_teacher(head)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 1.0
    distances = []
    for _ in range(200):
        follow(teacher, head, 10_000)
        pairs = zip(teacher.parameters(), head.parameters(), strict=True)
        distances.append(max(float((kept - fresh).detach().abs().max()) for kept, fresh in pairs))
    assert distances[0] == pytest.approx(0.99, abs=1e-4)
    assert distances[-1] < 0.2
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_an_unsure_teacher_says_nothing_and_a_sure_one_pulls_the_head_to_itself(labels: LabelSet) -> None:
    head = head_of(labels).train()
    teacher = make_teacher(head)
    loss_function = SegmentationLoss(labels)
    embedding = torch.randn(4, 32, 16, 16)

    def loss() -> torch.Tensor:
        return consistency_loss(head, teacher, embedding, loss_function, np.random.default_rng(0), False)

    with torch.no_grad():
        teacher.classify.weight.zero_()
        teacher.classify.bias.zero_()
    loss().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in head.parameters())
    with torch.no_grad():
        teacher.classify.bias[-1] = 9.0  # sure of the last output everywhere
        teacher.classify.bias[:-1] = -9.0
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        current = loss()
        current.backward()
        optimizer.step()
        losses.append(current.item())
    assert losses[-1] < 0.6 * losses[0]
    assert head.logits_size == teacher.logits_size == 64


class Enlarging(nn.Module):
    """A head without the attribute that lets its logits be halved."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(32, 3, 1)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.classify(embedding), (64, 64), mode="bilinear")


@pytest.mark.parametrize("name", ["linear", "unet", "of a third party"])
def test_every_kind_of_head_can_learn_from_a_teacher(name: str) -> None:
    stride, channels = (1, 3) if name == "unet" else (4, 32)
    shape = HeadShape(CLASSES.outputs, channels, stride, 64)
    head = Enlarging() if name == "of a third party" else build_head(name, shape, {}, {})
    torch.manual_seed(0)
    with torch.no_grad():
        head.classify.weight.normal_(std=50.0)  # sure of itself
    teacher = make_teacher(head)
    embedding = torch.randn(2, channels, 64 // stride, 64 // stride)
    loss = consistency_loss(head, teacher, embedding, SegmentationLoss(CLASSES), np.random.default_rng(0), False)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_labels_of_unlabelled_cases_are_never_read(prepared: Prepared, folders: Folders) -> None:
    entries = embed_dataset(prepared.dataset, prepared.plan, folders, views=1)
    blind = [replace(entry, labels=None, present=()) for entry in entries]  # type: ignore[arg-type]
    drawn = UnlabelledBatches(blind).draw(np.random.default_rng(0), 5)
    assert drawn.shape == (5, *entries[0].embedding.shape[1:]) and drawn.dtype == torch.float32


def test_the_rest_of_the_fold_is_unlabelled(prepared: Prepared, folders: Folders) -> None:
    options = TrainingOptions(labelled=1, unlabelled=True)
    folder = train_head(prepared.dataset, prepared.plan, "cnn", 0, options, folders)
    assert folder.parent.name == "cnn_labelled1_seed0_unlabelled"
    manifest = json.loads((folder / "run.json").read_text())
    parts = [set(manifest[key]) for key in ("trained_on", "unlabelled", "held_out")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6
    assert manifest["iterations"] == 4 * 10
    plain = train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(labelled=1), folders)
    assert (plain / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_scans_of_held_out_patients_are_left_out(prepared: Prepared, tmp_path: Path) -> None:
    dataset = replace(prepared.dataset, folder=tmp_path)
    (held_out, *_) = training_split(dataset, "0", TrainingOptions(), prepared.folders).val
    (tmp_path / "imagesUn").mkdir()
    for name in ("patient099_frame01", held_out.replace("frame01", "frame09")):
        (tmp_path / "imagesUn" / f"{name}_0000{dataset.file_ending}").touch()
    options = TrainingOptions(unlabelled=True)
    assert options.run_name("cnn") == "cnn_unlabelled"
    assert unlabelled_part(dataset, "0", options, prepared.folders) == ("patient099_frame01",)
    assert len(unlabelled_part(dataset, "all", options, prepared.folders)) == 2


def test_without_patients_left_unlabelled_the_flag_is_refused(prepared: Prepared, folders: Folders) -> None:
    with pytest.raises(
        UsageError, match="--unlabelled: all patients of this fold are labelled, and there is no scan in imagesUn"
    ):
        train_head(prepared.dataset, prepared.plan, "cnn", 0, TrainingOptions(unlabelled=True), folders)
    assert unlabelled_part(prepared.dataset, "0", TrainingOptions(labelled=1), folders) == ()
    assert not folders.results.exists()


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainingOptions(labelled=1, unlabelled=True)

    def trained() -> bytes:
        folder = train_head(prepared.dataset, prepared.plan, "cnn", 0, options, folders)
        return (folder / "model.safetensors").read_bytes()

    plain_write, written = train.write_log, []

    def stop_after_five_epochs(*arguments: object) -> None:
        written.append(arguments)
        if len(written) == 5:
            raise KeyboardInterrupt
        plain_write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "write_log", stop_after_five_epochs)
        trained()
    options = replace(options, resume=True)
    continued = trained()
    options = replace(options, resume=False, overwrite=True)
    assert trained() == continued
