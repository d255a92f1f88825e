"""What may be done to a label map after it is predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autosam_net.preprocessing.geometry import crop, crop_box


def keep_largest(labels: NDArray[np.integer], groups: Sequence[Sequence[int]]) -> NDArray[np.integer]:
    """Return the label map with only the largest connected component of each group of values; the others become 0.

    Voxels are connected where they share a face, an edge or a corner, in all directions (nnU-Net's definition). They
    are all of one size, so that the most voxels are also the most mm3. Of components of equal size the first is kept.

    Args:
        labels: `(Z, Y, X)`; it is left as it is.
        groups: of values that are one piece together, one group after the other.
    """
    from scipy import ndimage

    kept = labels.copy()
    for values in groups:
        mask = np.zeros(kept.shape, np.uint8)
        for target, plane in zip(mask, kept, strict=True):  # plane by plane: numpy counts and compares in 64 bits
            target[...] = np.isin(plane, values)
        box = crop_box(mask[None])
        components, count = ndimage.label(crop(mask, box), structure=np.ones((3, 3, 3)))
        if count > 1:
            sizes = np.zeros(count + 1, np.int64)
            for plane in components:
                sizes += np.bincount(plane.ravel(), minlength=count + 1)
            largest = 1 + sizes[1:].argmax()
            for target, plane in zip(crop(kept, box), components, strict=True):
                target[(plane > 0) & (plane != largest)] = 0
    return kept
