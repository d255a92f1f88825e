"""The embeddings of one image in memory or on disk, without a data set or a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autosam_net.data.encoding import RgbSource
from autosam_net.data.plan import Normalization
from autosam_net.data.volume import Volume
from autosam_net.embedding.source import batches_of
from autosam_net.encoders.encoder import Encoder
from autosam_net.errors import DatasetError
from autosam_net.imageio.open import Image, open_image
from autosam_net.preprocessing.geometry import plane_shape, resize_planes
from autosam_net.preprocessing.normalization import normalize
from autosam_net.preprocessing.slices import TileGrid, rgb_inputs

WINDOW = Normalization("percentile", 0.5, 99.5)  # what the planner takes where intensities have no scale


def embed_image(image: Image, encoder: Encoder, spacing: Sequence[float] | None = None) -> NDArray[np.float32]:
    """Return the embeddings `(Z, channels, h, w)` of the slices of an image; Z is 1 for a 2D image.

        encoder = load_encoder("lite_medsam")
        embeddings = embed_image("scan.nii.gz", encoder)  # (Z, 256, 64, 64)

    Each channel goes from its percentiles 0.5 and 99.5 to [0, 1]. Each slice along the first axis gets square pixels,
    is enlarged or reduced until its longer side fills the encoder's input, and is centred on black; one channel becomes
    three equal ones. A trained model sees what its plan says instead; `embed_dataset` gives that.

    Args:
        image: as `segment` takes it, with one channel or three.
        spacing: of an array, mm along each spatial axis in array order.

    Raises:
        DatasetError: the image has another number of channels, or a voxel is not a finite number.
        ImageFileError: a file cannot be read.
        UsageError: an array without a spacing, or a file with one.
    """
    slices = _fitted(open_image(image, spacing), encoder.input_size)
    height, width = slices.shape[2:]
    corner = (-((encoder.input_size - height) // 2), -((encoder.input_size - width) // 2))
    grid = TileGrid((height, width), encoder.input_size, (corner,))
    rgb = [RgbSource(channel if len(slices) > 1 else 0) for channel in range(3)]
    device = encoder.scale.device
    batches = batches_of(slices.shape[1], device.type)
    inputs = (torch.from_numpy(rgb_inputs(slices, grid, rgb, indices)) for indices in batches)
    return np.concatenate([encoder(batch.to(device)).cpu().numpy() for batch in inputs])


def _fitted(volume: Volume, size: int) -> NDArray[np.float32]:
    """Return `(C, Z, Y, X)` in [0, 1] with square pixels, the longer of Y and X being `size`."""
    if len(volume.array) not in (1, 3):
        raise DatasetError(f"image: {len(volume.array)} channels, expected one or three. Choose some of them.")
    if not np.isfinite(volume.array).all():
        raise DatasetError("image: has voxels that are NaN or infinite. Replace them.")
    plane, (_, *spacing) = volume.shape[1:], volume.geometry.spacing
    longer = max(pixels * step for pixels, step in zip(plane, spacing, strict=True))
    shape = plane_shape(plane, (spacing[0], spacing[1]), longer / size)
    return np.stack([resize_planes(normalize(channel, WINDOW), shape) for channel in volume.array])
