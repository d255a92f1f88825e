"""Prediction of whole cases, from file to file, by one head and by ensembles; and a slice's way back to its grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from skimage.transform import resize

from autosam_net.data.dataset import training_cases
from autosam_net.embedding.source import EncoderSource
from autosam_net.heads.head import build_head
from autosam_net.imageio import read_case
from autosam_net.inference.model import Model
from autosam_net.inference.predict import assemble_slices, resized
from autosam_net.preprocessing.slices import TileGrid
from autosam_net.training.build import head_shape
from autosam_net.training.manifest import peak_memory_mib
from benchmarks.measuring import Row, Setting

ENSEMBLES = {
    "1 fold of cnn": (("cnn",), 1),
    "5 folds of cnn": (("cnn",), 5),
    "5 folds of cnn, linear and vit": (("cnn", "linear", "vit"), 5),
}
COUNTS = (4, 8, 16, 32)
GOALS = dict(zip(ENSEMBLES, ("", "<= 1.3", "<= 1.5"), strict=True))


def measure(setting: Setting) -> list[Row]:
    """Return the time of a case by untrained heads, without test-time augmentation."""
    growth = _growth(setting)  # first, while the process has held nothing larger
    works = {name: _prediction(setting, *ensemble) for name, ensemble in ENSEMBLES.items()}
    times = setting.in_turn(works, rounds=3)
    single = times["1 fold of cnn"]
    rows = [Row(name, "case", seconds, seconds / single, "of 1 fold", GOALS[name]) for name, seconds in times.items()]
    return [*rows, *growth, *_restoring(setting)]


def _growth(setting: Setting) -> list[Row]:
    """Return how time and memory grow with the slices of a volume, which repeats those of a case."""
    model, volume = untrained_model(setting, ("cnn",), 1), read_case(training_cases(setting.dataset)[0].images)
    axis, peaks = setting.plan.preprocessing.slice_axis + 1, dict.fromkeys(COUNTS, 0.0)

    def predict(count: int) -> None:
        longer = np.take(volume.array, np.arange(count) % volume.array.shape[axis], axis)
        for _ in model.members(model.preprocess("longer", replace(volume, array=longer))):
            pass
        peaks[count] = peaks[count] or peak_memory_mib("cpu")

    times = setting.in_turn({f"{count} slices": partial(predict, count) for count in COUNTS}, rounds=2)
    correlation = np.corrcoef(COUNTS, list(times.values()))[0, 1]
    name = f"{', '.join(map(str, COUNTS))} slices"
    return [
        Row(f"time of {name}: linear", ratio=float(correlation**2), to="= R2", goal="> 0.99"),
        Row(f"peak memory of {COUNTS[-1]} slices", ratio=peaks[COUNTS[-1]] / peaks[COUNTS[0]], to=f"of {COUNTS[0]}"),
    ]


def _restoring(setting: Setting) -> list[Row]:
    """Return the time of a slice from probabilities to labels on a finer grid, class by class as in nnU-Net."""
    labels, plane = setting.plan.label_set, (512, 512)
    probabilities = torch.rand(labels.outputs, 256, 256, generator=torch.Generator().manual_seed(0))
    grid = TileGrid((256, 256), 256, ((0, 0),))

    def ours() -> object:
        return [labels.decode(resized(one, plane)) for one in assemble_slices([[probabilities]], grid)]

    def theirs() -> object:  # nnU-Net's `resample_data_or_seg` of a slice, order 1
        maps = probabilities.numpy()
        return labels.decode(np.stack([resize(one, plane, 1, mode="edge", anti_aliasing=False) for one in maps]))

    names = f"{labels.outputs} maps of 256 px to labels of 512 px, by skimage", "the same, ours"
    times = setting.in_turn(dict(zip(names, (theirs, ours), strict=True)))
    ratio = times[names[0]] / times[names[1]]
    return [Row(names[0], "slice", times[names[0]]), Row(names[1], "slice", times[names[1]], ratio, "times as fast")]


def untrained_model(setting: Setting, names: tuple[str, ...], folds: int) -> Model:
    """Return a model of heads as they are before training."""
    plan = replace(setting.plan, keep_largest=())
    source = EncoderSource(plan.encoding, "cpu")
    torch.manual_seed(0)
    weights = source.encoder.mask_decoder_weights
    heads = [
        build_head(name, head_shape(plan), plan.configuration(name).settings, weights).eval()
        for name in names
        for _ in range(folds)
    ]
    return Model(plan, tuple(heads), source)


def _prediction(setting: Setting, names: tuple[str, ...], folds: int) -> Callable[[], object]:
    model, case = untrained_model(setting, names, folds), training_cases(setting.dataset)[0]
    return lambda: model.predict_folder(list(case.images), setting.scratch / "predicted")
