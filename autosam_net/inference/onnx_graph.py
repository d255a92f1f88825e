"""A model as one ONNX graph, from the encoder's input to logits, for programs without torch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosam_net.data.encoding import Encoding
from autosam_net.embedding.source import encode_inputs
from autosam_net.encoders.encoder import load_encoder
from autosam_net.errors import ModelError, UsageError
from autosam_net.files import atomic_file
from autosam_net.inference.model import Model
from autosam_net.jsonio import canonical
from autosam_net.parallel import working

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra onnx
LARGEST = 2**31  # bytes; a graph in one file is one message of protobuf
TOLERANCE = 1e-4
"""Of the largest logit: float32 sums in another order. Measured: 1e-5 with lite_medsam and a trained cnn."""


class LogitsGraph(nn.Module):
    """Images (N, 3, S, S) in [0, 1] -> logits (N, outputs, S, S).

    For several heads their softmax (of regions: sigmoid) is the mean of the heads' probabilities, as in `predict`.
    """

    def __init__(self, encoder: nn.Module, heads: Sequence[nn.Module], encoding: Encoding, regions: bool) -> None:
        super().__init__()
        self.encoder, self.heads, self.encoding, self.regions = encoder, nn.ModuleList(heads), encoding, regions

    def forward(self, images: Tensor) -> Tensor:
        embedding = encode_inputs(self.encoder, images, self.encoding)
        logits = torch.stack([head(embedding) for head in self.heads])  # (heads, N, outputs, S, S)
        if len(self.heads) == 1:
            return logits[0]
        if self.regions:
            return torch.logsumexp(F.logsigmoid(logits), 0) - torch.logsumexp(F.logsigmoid(-logits), 0)
        return torch.logsumexp(torch.log_softmax(logits, 2), 0) - math.log(len(self.heads))


def export_onnx(model: Model, target: Path) -> float:
    """Write a model as an ONNX graph in float32; return by how much onnxruntime's logits differ from torch's.

    Input `images` (N, 3, S, S) in [0, 1], output `logits` (N, outputs, S, S), any N; the plan stands in the metadata
    under `autosam_net`. Preprocessing, tiles, poses and post-processing are not in the graph.

    Raises:
        ModelError: a head cannot be exported, has tuned the encoder or needs prompts, or the graph is too large for a
            file, or computes something else.
        UsageError: the packages of the extra `onnx` are missing.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"--onnx: {', '.join(missing)} not installed. Run pip install 'autosam_net[onnx]'.")
    encoding = model.plan.encoding
    if encoding.tuned:
        raise ModelError("--onnx: holds heads over one frozen encoder; this model has tuned it. Leave --onnx out.")
    if model.plan.prompts is not None:
        raise ModelError("--onnx: holds heads that take images alone; this model needs prompts. Leave --onnx out.")
    encoder = load_encoder(encoding.encoder, encoding.input_size, encoding.weights_file, "cpu", "float32")
    graph = LogitsGraph(encoder, model.heads, encoding, model.plan.label_set.has_regions).eval()
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    if size >= LARGEST:
        raise ModelError(f"{encoding.encoder} and heads take {size / 2**30:.1f} GiB; an ONNX file holds less than 2.")
    images = torch.rand((1, 3, encoding.input_size, encoding.input_size), generator=torch.Generator().manual_seed(0))
    with atomic_file(target) as temporary:
        with working("export to ONNX"):
            _write(graph, images.expand(2, -1, -1, -1), temporary, canonical(model.plan))
        with working("compare with torch"):
            return _difference(graph, images, temporary, target)


def _write(graph: LogitsGraph, images: Tensor, path: Path, plan: str) -> None:
    try:
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        names = ", ".join(sorted({type(head).__name__ for head in graph.heads}))
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ModelError(f"{names}: cannot be exported to ONNX ({reason}). Choose another head with -c.") from error
    assert program is not None, "dynamo=True returns a program"
    program.model.metadata_props["autosam_net"] = plan
    program.save(path, external_data=False)


def _difference(graph: LogitsGraph, images: Tensor, path: Path, target: Path) -> float:
    """Return the largest difference between torch's and onnxruntime's logits.

    Raises:
        ModelError: it is above the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = graph(images).numpy()
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(f"{target}: the graph's logits differ from torch's by {difference:.2g}; not written.")
    return difference
