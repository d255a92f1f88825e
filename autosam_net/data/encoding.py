"""How slices become embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from autosam_net.jsonio import SPARSE

PLAIN = "plain"
NO_ENCODER = "image"  # in the catalogue: what stands for the inputs themselves
CELL = 4  # folded pixels along each side of an embedding pixel; where an encoder has more, they are averaged
POSES = ("flip_y", "flip_x", "turn_90", "turn_180", "turn_270")  # beside the plain one
VIEWS_OF_POSES = 2  # of each slice at least, where predictions are averaged over poses: the plain one shows one pose


@dataclass(frozen=True)
class RgbSource:
    """What fills one of the encoder's three input channels: an image channel of the slice `offset` slices away."""

    channel: int
    offset: int = 0


@dataclass(frozen=True)
class Encoding:
    """From slices to embeddings.

    Attributes:
        encoder: in the catalogue of encoders.
        weights: a file that replaces the published weights, or null.
        input_size: pixels of the square input; larger slices are tiled.
        overlap: fraction of a tile shared with its neighbour.
        rgb: the sources of the three input channels.
        maximum_views: upper bound of views (one plain, the others augmented) of each training slice.
        slice_budget: encoder passes that the training set of one fold may cost, all views counted; with few slices
            there are more views of each, with many slices fewer (but always the plain one, and a turned one where
            predictions are averaged over poses).
        rotation: degrees by which augmented views are turned at most, either way.
        poses: of `POSES`, those that slices are put in beside the plain one, for test-time augmentation and for
            learning from unlabelled cases; each costs one more encoder pass.
        pixels: the slice's own pixels go along with its embedding, for heads that draw boundaries with them.
        tuned: the encoder learns with the head: every head brings its own, and takes the inputs themselves.
        tuned_from: attention block from which on it does; what lies below stays frozen, and heads take its features.
    """

    encoder: str
    weights: str | None
    input_size: int
    overlap: float
    rgb: tuple[RgbSource, RgbSource, RgbSource]
    maximum_views: int
    slice_budget: int
    rotation: float
    poses: tuple[str, ...] = ()
    pixels: bool = False
    tuned: bool = field(default=False, metadata=SPARSE)
    tuned_from: int | None = field(default=None, metadata=SPARSE)

    @property
    def source(self) -> Encoding:
        """Return what heads are given: embeddings, or what the encoders of their own take: inputs, or features."""
        if self.tuned and self.tuned_from is None:
            return replace(self, encoder=NO_ENCODER, weights=None, pixels=False, tuned=False)
        return replace(self, tuned=False)

    @property
    def weights_file(self) -> Path | None:
        """Return the file that replaces the published weights, if any."""
        return None if self.weights is None else Path(self.weights)

    @property
    def distinct_channels(self) -> list[int]:
        """Return those of the three input channels that differ from one another."""
        return [index for index, source in enumerate(self.rgb) if source not in self.rgb[:index]]

    @property
    def pixel_channels(self) -> int:
        """Return how many of them go along with an embedding, pixel by pixel."""
        return len(self.distinct_channels) if self.pixels else 0

    @property
    def folded_channels(self) -> int:
        """Return how many channels these pixels take, folded to the embedding's resolution."""
        return self.pixel_channels * CELL**2

    @property
    def all_poses(self) -> tuple[str, ...]:
        """Return the plain pose and the others."""
        return (PLAIN, *self.poses)

    @property
    def least_views(self) -> int:
        """Return how many views of each slice a head needs to know the poses that its predictions are averaged over."""
        return min(self.maximum_views, VIEWS_OF_POSES if self.poses else 1)

    def views_for(self, slices: int) -> int:
        """Return the number of views of each of `slices` training slices."""
        return max(self.least_views, min(self.maximum_views, self.slice_budget // max(slices, 1)))
