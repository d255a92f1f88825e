"""What may be done to a label map after it is predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
        components, count = ndimage.label(np.isin(kept, values), structure=np.ones((3,) * labels.ndim))
        if count > 1:
            largest = 1 + np.bincount(components.ravel())[1:].argmax()
            kept[(components > 0) & (components != largest)] = 0
    return kept
