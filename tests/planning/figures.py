"""Made-up figures for tests of the rules: fingerprints, machines, probes."""

from __future__ import annotations

from pathlib import Path

from autosam_net.data.dataset import DatasetSpec
from autosam_net.data.encoding import Encoding
from autosam_net.data.fingerprint import CaseFingerprint, ClassStats, Fingerprint, IntensityStats
from autosam_net.data.labels import LabelSet
from autosam_net.encoders.catalog import ENCODERS
from planning.machine import HeadRecipe, Machine, Probe
from planning.rules.inputs import THRICE

RECIPES = {
    "cnn": HeadRecipe({"dropout": 0.1}, batch_size=8, epochs=10, iterations=50, learning_rate=1e-3, weight_decay=1e-2),
    "unet": HeadRecipe(
        {}, batch_size=8, epochs=8, iterations=50, learning_rate=1e-3, weight_decay=1e-2, encoder="image"
    ),
    "linear": HeadRecipe({}, batch_size=8, epochs=8, iterations=50, learning_rate=5e-3, weight_decay=1e-2),
}


def intensities(
    minimum: float = 0.0, maximum: float = 100.0, foreground_mean: float = 60.0, integer: bool = True
) -> IntensityStats:
    ramp = tuple(minimum + (maximum - minimum) * step / 200 for step in range(201))
    return IntensityStats(minimum, maximum, 50.0, 10.0, ramp, ramp, foreground_mean, integer)


def case(
    name: str = "a",
    shape: tuple[int, int, int] = (10, 256, 216),
    spacing: tuple[float, float, float] = (10.0, 1.5, 1.5),
    extents: dict[str, float] | None = None,
    channels: tuple[IntensityStats, ...] | None = None,
    calibrated: bool = True,
) -> CaseFingerprint:
    classes = {
        name: ClassStats(1000, 1e4, 1, 1e4, (extent, extent, extent), (5, 20, 20), (0.0, 0.0, 0.0))
        for name, extent in (extents if extents is not None else {"organ": 60.0}).items()
    }
    stats = channels or (intensities(),)
    whole = ClassStats(1000, 1e4, 2, 5e3, (60.0, 60.0, 60.0), (5, 20, 20), (0.0, 0.0, 0.0))  # in two pieces
    return CaseFingerprint(name, "0" * 64, shape, shape, spacing, calibrated, stats, classes, whole)


def fingerprint(*cases: CaseFingerprint, groups: dict[str, str] | None = None) -> Fingerprint:
    cases = cases or tuple(case(f"case{index}") for index in range(10))
    return Fingerprint(
        dataset="Dataset001_Made",
        cases=cases,
        channel_kinds=("other",) * len(cases[0].channels),
        groups=groups or {entry.name: entry.name for entry in cases},
        foreground_percentiles=tuple((5.0, 95.0) for _ in cases[0].channels),
        presence={"organ": len(cases)},
    )


def dataset(channel_names: tuple[str, ...] = ("MRI",), file_ending: str = ".nii.gz") -> DatasetSpec:
    labels = LabelSet({"background": 0, "organ": 1})
    return DatasetSpec("Dataset001_Made", Path("Dataset001_Made"), channel_names, labels, file_ending, 10)


def machine(
    device: str = "cpu", disk_mib: float = 1e6, local_weights: tuple[str, ...] = ("lite_medsam",), gpu_mib: float = 8e3
) -> Machine:
    gpu = 0.0 if device == "cpu" else gpu_mib
    return Machine(device, 2, 16e3, gpu, disk_mib, bfloat16=True, local_weights=local_weights)


def probe(on: Machine | None = None, seconds: float = 0.5) -> Probe:
    times = dict.fromkeys(RECIPES, 0.4)
    memory = {"encode": 900.0, **dict.fromkeys(RECIPES, 1200.0)}
    return Probe(on or machine(), seconds, times, memory, RECIPES)


def has_figures(reason: str) -> bool:
    return any(character.isdigit() for character in reason) and "\n" not in reason


LITE, VIT = ENCODERS.get("lite_medsam"), ENCODERS.get("vit_b")
ACDC = fingerprint(case(shape=(10, 256, 276), spacing=(10.0, 1.5625, 1.5625), extents={"rv": 60.0, "myo": 62.0}))
HIPPOCAMPUS = fingerprint(case(shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), extents={"anterior": 15.0}))
ULTRASOUND = fingerprint(case(shape=(1, 540, 800), spacing=(1.0, 1.0, 1.0), extents={"head": 300.0}, calibrated=False))
LESIONS = fingerprint(case(shape=(160, 180, 140), spacing=(1.0, 1.0, 1.0), extents={"lesion": 5.0}))
CUBE = fingerprint(case(shape=(64, 64, 64), spacing=(1.0, 1.0, 1.0)))
ENCODING = Encoding("lite_medsam", None, 256, 0.25, THRICE, 1, 1, 180.0)
