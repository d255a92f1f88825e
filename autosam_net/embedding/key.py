"""What an embedding was computed from."""

from __future__ import annotations

from dataclasses import dataclass, field

from autosam_net.data.encoding import PLAIN, Encoding, RgbSource
from autosam_net.data.plan import settings_digest
from autosam_net.encoders.weights import weights_sha256
from autosam_net.jsonio import SPARSE

EMBEDDING_VERSION = 2  # to be raised when the same key gives other embeddings (views, tiles)


@dataclass(frozen=True)
class EmbeddingKey:
    """Everything that an embedding depends on; equal keys, equal embeddings.

    Attributes:
        case: name of the case, for people; `content` counts.
        content: key of the preprocessed case: its files and the preprocessing settings.
        precision: in which the encoder computed.
        view: 0 is the slice as it is, others are augmented.
        pixels: whether the inputs' own pixels are folded in behind the embeddings.
        rotation: degrees by which augmented views are turned at most; 0 for view 0.
        pose: that view 0 is put in.
        tuned_from: attention block at which the encoder ends; None for its embeddings.
    """

    version: int
    case: str
    content: str
    encoder: str
    weights_sha256: str
    precision: str
    input_size: int
    overlap: float
    rgb: tuple[RgbSource, RgbSource, RgbSource]
    pixels: bool
    view: int
    rotation: float
    pose: str
    tuned_from: int | None = field(default=None, metadata=SPARSE)

    @property
    def settings(self) -> str:
        """Return a short digest of what all cases and views have in common: the name of their folder."""
        computed = self.version, self.weights_sha256, self.precision
        cut = [] if self.tuned_from is None else [self.tuned_from]
        digest = settings_digest(*computed, self.input_size, self.overlap, self.rgb, self.pixels, *cut)
        return f"{self.encoder}_{self.input_size}_{digest[:12]}"


def embedding_key(
    case: str, content: str, encoding: Encoding, precision: str, view: int, pose: str = PLAIN
) -> EmbeddingKey:
    """Return the key of one view of a preprocessed case under the planned encoding; nothing tuned is ever cached."""
    encoding = encoding.source
    return EmbeddingKey(
        version=EMBEDDING_VERSION,
        case=case,
        content=content,
        encoder=encoding.encoder,
        weights_sha256=weights_sha256(encoding.encoder, encoding.weights_file),
        precision=precision,
        input_size=encoding.input_size,
        overlap=encoding.overlap,
        rgb=encoding.rgb,
        pixels=encoding.pixels,
        view=view,
        rotation=encoding.rotation if view else 0.0,
        pose=pose,
        tuned_from=encoding.tuned_from,
    )
