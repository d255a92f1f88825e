"""Random corruptions of what a user hands in or may edit: exit code 2 with one line, or a right result.

Never a traceback, a hang, all of the memory, or a result that is not what the file says.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import resource
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import autosam_net.commands.encode
import autosam_net.commands.predict
import planning.command
from autosam_net.data.dataset import find_dataset, training_cases
from autosam_net.data.prompts import Outline, Prompt, write_prompts
from autosam_net.data.splits import group_cases, load_splits
from autosam_net.errors import AutosamError
from autosam_net.files import sha256_of_files
from autosam_net.imageio import read_image, read_label
from autosam_net.preprocessing.preprocess import preprocess_case
from autosam_net.training.cases import training_split
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.faults.stages import SHARE
from tests.support import Prepared, copied, with_small_sam, write_nifti

EXAMPLES = 40  # of each kind of file
MANY = max(EXAMPLES, round(1000 * SHARE))
SECONDS = 30  # that nothing here takes unless it hangs
MEMORY = 6 << 30  # bytes of address space beyond those in use

HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**63,
    10**400,
    1e308,
    -0.5,
    "",
    "a",
    "\x00",
    "../x",
    "\ud800",
    [],
    [[]],
    {},
]
HOSTILE += [[1, 1], {"a": 1}, "\n", "é" * 200]


def configured(examples: int) -> Callable[[Any], Any]:
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    phases = (Phase.explicit, Phase.generate)  # the first failure says enough
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=health,
    )


@contextmanager
def bounded() -> Iterator[None]:
    """Let what takes too long or too much memory fail instead of stopping the machine."""

    def too_long(*_: object) -> None:
        raise TimeoutError("it hangs")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, limits[1]))
    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def exit_code(main: Callable[[list[str]], int], words: list[str]) -> int:
    """Return a command's exit code, 0 or 2; with 2 it said one line, or one a problem and their number."""
    said = io.StringIO()
    with bounded(), redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    assert code in (0, 2), said.getvalue()
    if code == 2:
        lines = [line for line in said.getvalue().splitlines() if ": " in line and "case/s" not in line]
        assert lines and (len(lines) == 1 or main is planning.command.main), said.getvalue()
        assert "Traceback" not in said.getvalue()
        assert "\x00" not in said.getvalue()
    return code


def assert_one_line(error: AutosamError) -> None:
    assert str(error) and "\n" not in str(error)


@st.composite
def corrupted_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Flip bits, cut, remove, repeat or replace bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "remove", "repeat", "put"]))
        if kind == "flip" and changed:
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[place:]
        elif kind == "remove":
            del changed[place : place + draw(st.integers(1, 40))]
        elif kind == "repeat":
            changed[place:place] = changed[place : place + 40]
        else:
            changed[place : place + 4] = draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)


@st.composite
def corrupted_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Corrupt the text, or put a hostile value in the place of one that is there, or take a key away."""
    if draw(st.booleans()):
        return draw(corrupted_bytes(content))
    data = json.loads(content)
    here: Any = data
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return content
        key = draw(st.sampled_from(keys))
        if isinstance(here[key], (dict, list)) and draw(st.integers(0, 3)):
            here = here[key]
            continue
        if draw(st.integers(0, 4)):
            here[key] = draw(st.sampled_from(HOSTILE))
        else:
            del here[key]
        return json.dumps(data).encode()


@pytest.fixture(scope="module")
def place(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Return a copy of the phantom with one fold trained, an image to predict, and a small SAM that takes prompts."""
    place = copied(prepared, tmp_path_factory.mktemp("corruption"))
    train_head(place.dataset, place.plan, "linear", 0, TrainingOptions(epochs=1), place.folders)
    write_nifti(place.root / "in" / "scan_0000.nii.gz", np.random.default_rng(0).random((2, 40, 40)).astype(np.float32))
    (place.root / "sam").mkdir()
    write_prompts(place.root / "prompts.json", PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        with_small_sam(place, place.root / "sam", patch)
        yield place


@contextmanager
def spoilt(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def dataset_json(place: Prepared, data: st.DataObject) -> None:
    file = place.dataset.folder / "dataset.json"
    words = ["-d", "900", "--check-only", "--workers", "1", "--quiet", "--root", str(place.root)]
    with spoilt(file, data.draw(corrupted_json(file.read_bytes()))):
        if exit_code(planning.command.main, words) == 0:
            dataset = find_dataset(900, place.folders)
            found = {value for case in training_cases(dataset) for value in np.unique(read_label(case.label).array)}
            assert found <= set(dataset.labels.allowed_values)


def plan_of_a_model(place: Prepared, data: st.DataObject) -> None:
    file = place.folders.results / place.dataset.name / "linear" / "plan.json"
    output = place.root / "out"
    words = ["-i", str(place.root / "in"), "-o", str(output), "--device", "cpu", "--quiet", "--root", str(place.root)]
    if not output.exists():
        assert exit_code(autosam_net.commands.predict.main, words) == 0
        shutil.move(output / "scan.nii.gz", place.root / "sound.nii.gz")
    with spoilt(file, data.draw(corrupted_json(file.read_bytes()))):
        if exit_code(autosam_net.commands.predict.main, words) == 0:
            edited = json.loads(file.read_text())
            decided = edited["keep_largest"] == [] and edited["encoding"].get("poses", []) == []
            assert not decided or sha256_of_files([output / "scan.nii.gz"]) == sha256_of_files(
                [place.root / "sound.nii.gz"]
            )


def plan_of_a_dataset(place: Prepared, data: st.DataObject) -> None:
    file = place.folders.preprocessed / place.dataset.name / "plan.json"
    case = training_cases(place.dataset)[0].name
    words = ["-d", "900", "--cases", case, "--device", "cpu", "--quiet", "--root", str(place.root)]
    with spoilt(file, data.draw(corrupted_json(file.read_bytes()))):
        exit_code(autosam_net.commands.encode.main, words)


PROMPTS = [
    Prompt(case="scan", slice=0, label="LV", box=(8.5, 9, 20, 21), foreground=((12, 14),), background=((1, 2),)),
    Prompt(case="scan", slice=1, label="MYO", box=(5, 6, 30, 31), hole=Outline(box=(9, 10, 22, 23))),
]


def prompts(place: Prepared, data: st.DataObject) -> None:
    file, output = place.root / "prompts.json", place.root / "prompted"
    words = ["-d", "900", "--zero-shot", "--prompts", str(file), "-i", str(place.root / "in"), "-o", str(output)]
    with spoilt(file, data.draw(corrupted_json(file.read_bytes()))):
        words += ["--device", "cpu", "--quiet", "--root", str(place.root / "sam")]
        if exit_code(autosam_net.commands.predict.main, words) == 0:
            given = {(prompt["slice"], prompt["label"]) for prompt in json.loads(file.read_text())["prompts"]}
            for position, plane in enumerate(read_label(output / "scan.nii.gz").array):
                values = {place.plan.labels[label] for at, label in given if at == position}
                assert set(np.unique(plane)) <= {0, *values}


def splits(place: Prepared, data: st.DataObject) -> None:
    file = place.folders.preprocessed / place.dataset.name / "splits_final.json"
    groups = group_cases([case.name for case in training_cases(place.dataset)], place.dataset.group_pattern)
    sound = load_splits(file)
    with spoilt(file, data.draw(corrupted_json(file.read_bytes()))):
        try:
            split = training_split(place.dataset, "0", TrainingOptions(), place.folders)
        except AutosamError as error:
            assert_one_line(error)
            return
    assert split.train and {*split.train, *split.val} <= set(groups)
    assert not {groups[case] for case in split.train} & {groups[case] for case in split.val}
    assert len(split.train) <= len(sound[0].train) + len(sound[0].val)


def fingerprint(place: Prepared, data: st.DataObject) -> None:
    file = place.folders.preprocessed / place.dataset.name / "dataset_fingerprint.json"
    words = ["-d", "900", "--check-only", "--workers", "1", "--quiet", "--root", str(place.root)]
    exit_code(planning.command.main, words)
    sound = file.read_bytes()
    with spoilt(file, data.draw(corrupted_json(sound))):
        assert exit_code(planning.command.main, words) == 0  # it is measured, not read
        assert file.read_bytes() == sound


FIELDS = {"dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f")}
FIELDS |= {"slope": (112, "f"), "inter": (116, "f"), "units": (123, "b"), "forms": (252, "2h"), "quatern": (256, "6f")}
FIELDS |= {"srow": (280, "12f"), "magic": (344, "4b"), "size": (0, "i")}

ANY_FLOAT = st.binary(min_size=4, max_size=4).map(lambda four: struct.unpack("<f", four)[0])


@st.composite
def corrupted_nifti(draw: st.DrawFn, content: bytes) -> bytes:
    """Corrupt the compressed bytes, or a field of the header with the compression sound."""
    if draw(st.integers(0, 3)) == 0:
        return draw(corrupted_bytes(content))
    changed = bytearray(gzip.decompress(content))
    for _ in range(draw(st.integers(1, 2))):
        offset, kind = draw(st.sampled_from(sorted(FIELDS.values())))
        letter, count = kind[-1], int(kind[:-1] or 1)
        size = struct.calcsize(letter)
        place = offset + size * draw(st.integers(0, count - 1))
        if letter == "f":
            value: Any = draw(ANY_FLOAT | st.sampled_from([0.0, -1.0, 1e-30, 1e30, 353.0, 1e9, math.inf, math.nan]))
        else:
            bits = 8 * size - 1
            value = draw(st.integers(-(1 << bits), (1 << bits) - 1) | st.sampled_from([0, -1, 1, 2, 4, 7, 64, 127]))
        struct.pack_into("<" + letter, changed, place, value)
    return gzip.compress(bytes(changed), 1)


def nifti(place: Prepared, data: st.DataObject) -> None:
    file = place.root / "in" / "scan_0000.nii.gz"
    sound = read_image(file)
    with spoilt(file, data.draw(corrupted_nifti(file.read_bytes()))), bounded():
        try:
            image = read_image(file)
            case = preprocess_case("scan", image, None, replace(place.plan.preprocessing, slice_axis=0))
        except AutosamError as error:
            assert_one_line(error)
            return
    assert np.isfinite(case.image).all() and case.image.min() >= 0 and case.image.max() <= 1
    assert all(np.isfinite(image.geometry.spacing)) and min(image.geometry.spacing) > 0
    assert image.array.nbytes <= sound.array.nbytes


def png(place: Prepared, data: st.DataObject) -> None:
    rng, file = np.random.default_rng(1), place.root / "picture.png"
    kind = data.draw(st.sampled_from([((40, 30), np.uint8), ((40, 30), np.uint16), ((40, 30, 3), np.uint8)]))
    Image.fromarray(rng.integers(0, 255, *kind)).save(file)
    sound = read_image(file).array
    with spoilt(file, data.draw(corrupted_bytes(file.read_bytes()))), bounded():
        try:
            found = read_image(file).array
        except AutosamError as error:
            assert_one_line(error)
            return
    assert np.array_equal(found, sound)


KINDS = [dataset_json, plan_of_a_model, plan_of_a_dataset, prompts, splits, fingerprint, nifti, png]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
@configured(EXAMPLES)
@given(data=st.data())
def test_one_line_or_a_right_result(place: Prepared, kind: Callable[..., None], data: st.DataObject) -> None:
    kind(place, data)


@pytest.mark.sweep
@kinds
@configured(MANY)
@given(data=st.data())
def test_one_line_or_a_right_result_often(place: Prepared, kind: Callable[..., None], data: st.DataObject) -> None:
    kind(place, data)
