"""Augmented views of encoder inputs, drawn before the encoder, once, with a seed for each.

The transforms are those that nnU-Net's users know, from batchgenerators. Its random numbers come from two global
generators (numpy's and Python's); for each view the first is seeded and put back afterwards, the second replaced.
"""

from __future__ import annotations

import functools
import hashlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

USERS_OF_RANDOM = ("noise_augmentations", "resample_augmentations", "utils")  # modules of batchgenerators


def draw_view(
    image: NDArray[np.float32], labels: NDArray[np.integer], seed: int, rotation: float
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Return one augmented copy of an encoder input and its label map; the same seed gives the same bytes.

    Args:
        image: `(3, S, S)` in [0, 1]; so is the result.
        labels: `(S, S)`.
        rotation: degrees by which it is turned at most, either way.
    """
    transforms = _transforms(image.shape[-1], rotation)
    with _seeded(seed):
        drawn = transforms(data=image[None].copy(), seg=labels[None, None].astype(np.float32))
    view = np.clip(drawn["data"][0], 0.0, 1.0).astype(np.float32)
    return view, np.rint(drawn["seg"][0, 0]).astype(labels.dtype)


def draw_views(
    images: NDArray[np.float32],
    labels: NDArray[np.integer],
    seeds: Sequence[int],
    rotation: float,
    processes: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Return what `draw_view` makes of each of the images `(N, 3, S, S)` and label maps `(N, S, S)` with its seed.

    Args:
        processes: that draw, kept for the next call; 0 for this one.
    """
    turns = [rotation] * len(seeds)
    if processes:
        from joblib import Parallel, delayed

        tasks = map(delayed(draw_view), images, labels, seeds, turns)
        drawn = Parallel(min(processes, len(seeds)), backend="loky")(tasks)
    else:
        drawn = list(map(draw_view, images, labels, seeds, turns))
    moved_images, moved_labels = zip(*drawn, strict=True)
    return np.stack(moved_images), np.stack(moved_labels)


def view_seed(case: str, index: int, view: int) -> int:
    """Return the seed of one view of one input of a case: 32 bits that depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{case}/{index}/{view}".encode()).digest()[:4], "big")


@functools.cache
def _transforms(size: int, rotation: float) -> Callable[..., dict[str, Any]]:
    """Return the chain of transforms for inputs of `size` pixels.

    Ranges follow nnU-Net's 2D augmentation, without mirroring, which would swap left and right structures.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from batchgenerators.transforms.abstract_transforms import Compose
        from batchgenerators.transforms.color_transforms import (
            BrightnessMultiplicativeTransform,
            ContrastAugmentationTransform,
            GammaTransform,
        )
        from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
        from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
        from batchgenerators.transforms.spatial_transforms import SpatialTransform

    turn = np.deg2rad(rotation)
    return Compose(
        [
            SpatialTransform(
                (size, size),
                patch_center_dist_from_border=None,
                random_crop=False,
                do_elastic_deform=True,
                alpha=(0.0, 0.6 * size),
                sigma=(0.06 * size, 0.1 * size),
                p_el_per_sample=0.3,
                do_rotation=True,
                angle_x=(-turn, turn),
                p_rot_per_sample=1.0,
                do_scale=True,
                scale=(0.75, 1.35),
                p_scale_per_sample=0.8,
                independent_scale_for_each_axis=True,
                border_mode_data="constant",
                border_cval_data=0,
                border_mode_seg="constant",
                border_cval_seg=0,
                order_data=1,
                order_seg=0,
            ),
            GaussianNoiseTransform((0.0, 0.003), p_per_sample=0.2),
            GaussianBlurTransform((0.5, 1.0), p_per_sample=0.2, p_per_channel=1.0, different_sigma_per_channel=False),
            BrightnessMultiplicativeTransform((0.7, 1.3), per_channel=False, p_per_sample=0.4),
            ContrastAugmentationTransform((0.7, 1.4), per_channel=False, p_per_sample=0.4),
            SimulateLowResolutionTransform((0.5, 1.0), per_channel=False, p_per_sample=0.2),
            GammaTransform((0.6, 1.6), retain_stats=False, per_channel=False, p_per_sample=0.5),
        ]
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's generator for a while, and give batchgenerators one of Python's for itself.

    Python's own is drawn from by other threads too: those of Dask do so at any time, and the view would be another.
    """
    modules = [sys.modules[f"batchgenerators.augmentations.{name}"] for name in USERS_OF_RANDOM]
    state, own = np.random.get_state(), random.Random(seed)
    np.random.seed(seed)
    for module in modules:
        vars(module)["random"] = own
    try:
        yield
    finally:
        np.random.set_state(state)
        for module in modules:
            vars(module)["random"] = random
