"""autosam_example: a small labelled data set made of nothing, cardiac-like, to try everything out.

Short-axis slices of a heart as cine MR shows it: bright blood in the left ventricle with two papillary muscles, the
darker muscle ring around it, the crescent of the right ventricle beside it; a bright vessel, a liver and lungs around.
Every patient has another position, size, rotation, contrast, coil shading and noise; over the frames the heart
contracts, and from base to apex it narrows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.commands.cli import folders_of, new_parser, run
from autosam_net.parallel import map_cases
from dataset_conversion.raw_writer import RawDescription, add_converter_flags, dataset_number, new_raw_dataset, report

SPACING = (8.0, 1.5, 1.5)  # mm (z, y, x), as cine MR has it
TEST_PATIENTS = 2
LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


@dataclass(frozen=True)
class Patient:
    """What differs between patients; lengths in mm, brightness relative.

    Attributes:
        centre: of the left ventricle (y, x) from the middle of the image.
        blood, muscle, fat, liver, lung: brightness of the tissues.
        shading: coefficients of the coil's smooth brightness field.
        contraction: part of the left ventricle's radius that is lost at the height of the beat.
    """

    centre: tuple[float, float]
    radius: float
    wall: float
    right_radius: float
    angle: float
    contraction: float
    blood: float
    muscle: float
    fat: float
    liver: float
    lung: float
    vessel: tuple[float, float]
    shading: tuple[float, float, float, float]
    noise: float
    gain: float


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = new_parser("Write a small labelled data set of cardiac-like volumes, to try everything out.")
    parser.add_argument(
        "-d", "--dataset", type=dataset_number, default=900, metavar="ID", help="its number (default 900)"
    )
    parser.add_argument("-n", "--name", default="Example", metavar="NAME", help="its name (default Example)")
    parser.add_argument("--patients", type=_positive, default=10, metavar="N", help="training patients (default 10)")
    parser.add_argument("--frames", type=_positive, default=2, metavar="N", help="frames (cases) a patient (default 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same data (default 0)")
    add_converter_flags(parser)
    return run(_write, parser, argv)


def write_example(
    raw: Path,
    patients: int = 10,
    frames: int = 2,
    seed: int = 0,
    identifier: int = 900,
    name: str = "Example",
    shape: tuple[int, int, int] = (6, 96, 96),
    overwrite: bool = False,
    workers: int | None = None,
) -> Path:
    """Return the folder of a new raw data set of phantoms, with two further patients as test cases.

    Args:
        shape: voxels (z, y, x) of each volume, of 8 x 1.5 x 1.5 mm. The heart keeps its size: below 64 in plane it
            is scaled down to fit.

    Raises:
        DatasetError: the data set exists.
    """
    description = _describe(identifier, name)
    with new_raw_dataset(description, raw, overwrite) as folder:
        jobs = [
            (folder, number, frame, frames, seed, shape, number >= patients)
            for number in range(patients + TEST_PATIENTS)
            for frame in range(frames)
        ]
        map_cases(_write_case, jobs, "phantoms", workers, lambda job: f"patient{job[1] + 1:03d}")
    return raw / description.folder_name


def draw_patient(random: np.random.Generator) -> Patient:
    """Return a patient; every number is drawn in a fixed order."""
    u = random.uniform
    return Patient(
        centre=(u(-12, 12), u(-6, 18)),
        radius=u(20, 27),
        wall=u(7, 11),
        right_radius=u(24, 32),
        angle=u(-0.4, 0.4),
        contraction=u(0.25, 0.4),
        blood=u(0.75, 1.0),
        muscle=u(0.28, 0.42),
        fat=u(0.55, 0.9),
        liver=u(0.35, 0.55),
        lung=u(0.05, 0.12),
        vessel=(u(34, 48), u(10, 30)),
        shading=(u(-0.3, 0.3), u(-0.3, 0.3), u(-0.15, 0.15), u(-0.15, 0.15)),
        noise=u(0.02, 0.05),
        gain=u(200, 900),
    )


def draw_case(
    patient: Patient, phase: float, shape: tuple[int, int, int], random: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return image and labels `(Z, Y, X)` of a patient at a phase of the beat, 0 (relaxed) to 1 (contracted)."""
    slices = [_draw_slice(patient, phase, index, shape, random) for index in range(shape[0])]
    image = np.stack([image for image, _ in slices])
    labels = np.stack([labels for _, labels in slices])
    noisy = np.hypot(image + random.normal(0, patient.noise, shape), random.normal(0, patient.noise, shape))
    return np.rint(noisy * patient.gain).astype(np.int16), labels


def _draw_slice(
    patient: Patient, phase: float, index: int, shape: tuple[int, int, int], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    from scipy.ndimage import gaussian_filter

    depth, height, width = shape
    scale = max(1.0, 64 / min(height, width))  # the heart fits into small images too
    y, x = np.meshgrid(_axis(height) * scale, _axis(width) * scale, indexing="ij")
    y, x = y - random.normal(0, 0.7), x - random.normal(0, 0.7)  # breath-holds differ from slice to slice
    apex = index / max(depth - 1, 1)
    labels = _draw_labels(patient, phase, apex, y, x)
    image = _draw_surroundings(patient, y, x)
    image[labels == LABELS["MYO"]] = patient.muscle
    image[(labels == LABELS["LV"]) | (labels == LABELS["RV"])] = patient.blood
    _draw_papillary_muscles(image, patient, phase, labels, y, x)
    texture = gaussian_filter(random.normal(0, 1, (height, width)), 2.0) * 0.25
    image = gaussian_filter(image, 0.6) * (1 + texture)
    return image * _shading(patient, height, width), labels


def _draw_labels(
    patient: Patient, phase: float, apex: float, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.uint8]:
    narrowing = np.sqrt(1 - 0.75 * apex**2)
    inner = patient.radius * (1 - patient.contraction * phase) * narrowing
    outer = inner + patient.wall * (1 + 0.45 * phase) * (1 - 0.2 * apex)
    dy, dx = y - patient.centre[0], x - patient.centre[1]
    right = patient.right_radius * (1 - 0.2 * phase) * (1 - 0.65 * apex)
    away = outer + 0.25 * right  # the crescent lies on the left of the image, against the septum
    along, across = _turn(dy, dx, patient.angle)
    labels = np.zeros(y.shape, np.uint8)
    labels[((across + away) / (0.85 * right)) ** 2 + (along / (1.15 * right)) ** 2 < 1] = LABELS["RV"]
    distance = np.hypot(along * 1.04, across / 1.04)
    labels[distance < outer] = LABELS["MYO"]
    labels[distance < inner] = LABELS["LV"]
    return labels


def _draw_surroundings(patient: Patient, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    image = np.full(y.shape, patient.lung)
    chest = np.hypot(y / 68, x / 70)
    image[chest > 0.92] = patient.fat
    image[chest > 1.0] = 0.01
    image[np.hypot((y - 52) / 26, (x + 30) / 45) < 1] = patient.liver
    dy, dx = y - patient.centre[0], x - patient.centre[1]
    image[np.hypot(dy / 1.05, (dx + 12) / 1.35) < patient.radius + patient.wall + 6] = patient.fat * 0.65
    image[np.hypot(dy - patient.vessel[1], dx - patient.vessel[0]) < 8] = patient.blood
    image[np.hypot(y + 55, x - 10) < 9] = patient.muscle
    return image


def _draw_papillary_muscles(
    image: NDArray[np.float64],
    patient: Patient,
    phase: float,
    labels: NDArray[np.uint8],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
) -> None:
    """Darken two spots inside the left ventricle; they count as blood, as annotators have it."""
    away = 0.6 * patient.radius * (1 - patient.contraction * phase)
    for angle in (patient.angle + 0.8, patient.angle - 0.8):
        spot = np.hypot(y - patient.centre[0] - away * sin(angle), x - patient.centre[1] - away * cos(angle)) < 3.0
        image[spot & (labels == LABELS["LV"])] = patient.muscle * 1.1


def _shading(patient: Patient, height: int, width: int) -> NDArray[np.floating]:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    a, b, c, d = patient.shading
    return np.exp(a * y + b * x + c * y * x + d * (y**2 - x**2))


def _axis(length: int) -> NDArray[np.floating]:
    return (np.arange(length) - (length - 1) / 2) * SPACING[1]


def _turn(
    dy: NDArray[np.float64], dx: NDArray[np.float64], angle: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return dy * cos(angle) - dx * sin(angle), dy * sin(angle) + dx * cos(angle)


def _write_case(job: tuple[Path, int, int, int, int, tuple[int, int, int], bool]) -> None:
    import SimpleITK as sitk

    from autosam_net.imageio.simpleitk import save

    folder, number, frame, frames, seed, shape, test = job
    patient = draw_patient(np.random.default_rng([seed, number]))
    phase = (1 - cos(pi * frame / max(frames - 1, 1))) / 2
    image, labels = draw_case(patient, phase, shape, np.random.default_rng([seed, number, frame]))
    case, part = f"patient{number + 1:03d}_frame{frame + 1:02d}", "Ts" if test else "Tr"
    targets: Sequence[tuple[NDArray[np.generic], str]] = (
        (image, f"images{part}/{case}_0000.nii.gz"),
        (labels, f"labels{part}/{case}.nii.gz"),
    )
    for array, target in targets:
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing(SPACING[::-1])
        volume.SetOrigin((10.0 * number, -25.0, 5.0))
        save(volume, folder / target)


def _describe(identifier: int, name: str) -> RawDescription:
    return RawDescription(
        identifier,
        name,
        ("MRI",),
        LABELS,
        ".nii.gz",
        group_pattern=r"^(patient\d+)",
        remarks={"description": "synthetic cardiac-like volumes written by autosam_example"},
    )


def _write(arguments: argparse.Namespace) -> None:
    write_example(
        folders_of(arguments).raw,
        patients=arguments.patients,
        frames=arguments.frames,
        seed=arguments.seed,
        identifier=arguments.dataset,
        name=arguments.name,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
    )
    report(_describe(arguments.dataset, arguments.name), arguments)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, found {text}")
    return int(text)
