from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

import planning.extract_fingerprint as module
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import DatasetError
from autosam_net.jsonio import load
from planning.extract_fingerprint import extract_fingerprint, measure_case, measure_class, measure_intensities
from tests.planning.conftest import CASES, SHAPE, SPACING, RawDataset, phantom
from tests.planning.figures import dataset
from tests.support import snapshot, write_nifti


def fingerprint_of(raw: RawDataset) -> Fingerprint:
    return extract_fingerprint(raw.spec, raw.folders, workers=1)


def test_the_figures_of_a_data_set(raw: RawDataset) -> None:
    found = fingerprint_of(raw)
    assert [case.name for case in found.cases] == sorted(CASES)
    case = found.cases[0]
    assert (case.shape, case.spacing, case.calibrated) == (SHAPE, SPACING, True)
    assert case.classes["left"].voxels == 3 * 12 * 8
    assert case.classes["right"].slices == (2, 8, 6)
    assert case.classes["right"].component_extent_mm == (10.0, 8.0, 6.0)
    assert found.presence == {"left": 4, "right": 4}
    assert found.channel_kinds == ("other",)
    assert found.groups == {name: name[:8] for name in CASES}
    lower, upper = found.foreground_percentiles[0]
    assert 130 < lower < upper < 220
    assert load(Fingerprint, raw.preprocessed / "dataset_fingerprint.json") == found


def test_a_second_run_reads_no_image_and_writes_nothing(raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint_of(raw)
    before = snapshot(raw.preprocessed)
    monkeypatch.setattr(module, "check_case", lambda *_: pytest.fail("an image was read again"))
    assert fingerprint_of(raw) == first
    assert snapshot(raw.preprocessed) == before


def test_only_what_changed_is_measured_again(raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint_of(raw)
    write_nifti(raw.image(CASES[1]), phantom(77)[0])
    read = []
    original = module.check_case
    monkeypatch.setattr(module, "check_case", lambda case, spec: read.append(case.name) or original(case, spec))
    second = fingerprint_of(raw)
    assert read == [CASES[1]]
    assert [one == two for one, two in zip(first.cases, second.cases, strict=True)] == [True, False, True, True]


def test_another_declaration_of_labels_is_checked_again(raw: RawDataset) -> None:
    fingerprint_of(raw)
    raw.describe(labels={"background": 0, "left": 1})
    with pytest.raises(DatasetError, match="4 problems in 4 cases"):
        fingerprint_of(raw)


def test_leftovers_of_killed_runs_go(raw: RawDataset) -> None:
    for place in (raw.preprocessed, raw.preprocessed / "fingerprints"):
        (place / ".writing-killed").mkdir(parents=True)
    fingerprint_of(raw)
    assert not list(raw.preprocessed.rglob(".writing-*"))


def test_records_of_removed_cases_go(raw: RawDataset) -> None:
    fingerprint_of(raw)
    raw.image(CASES[3]).unlink()
    raw.label(CASES[3]).unlink()
    raw.describe(numTraining=3)
    assert len(fingerprint_of(raw).cases) == 3
    assert sorted(path.stem for path in (raw.preprocessed / "fingerprints").iterdir()) == sorted(CASES[:3])


def test_the_same_files_twice_are_noticed(raw: RawDataset, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(raw.image(CASES[0]), raw.image(CASES[2]))
    shutil.copy(raw.label(CASES[0]), raw.label(CASES[2]))
    with caplog.at_level("INFO"):
        fingerprint_of(raw)
    assert caplog.messages == [f"{CASES[2]}: the same files as {CASES[0]}"]


def test_several_workers_find_the_same(raw: RawDataset) -> None:
    first = fingerprint_of(raw)
    shutil.rmtree(raw.preprocessed)
    assert extract_fingerprint(raw.spec, raw.folders, workers=2) == first


def test_groups_come_from_a_pattern_or_a_table(raw: RawDataset) -> None:
    raw.describe(group_pattern="_([ab])$")
    assert set(fingerprint_of(raw).groups.values()) == {"a", "b"}
    raw.describe(group_pattern=None)
    table = raw.folder / "groups.csv"
    table.write_text("case,group\n" + "".join(f"{name},{index % 2}\n" for index, name in enumerate(CASES)))
    assert fingerprint_of(raw).groups == {name: str(index % 2) for index, name in enumerate(CASES)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient\nx,1\n", r"groups.csv: found columns name, patient; expected case and group"),
        ("case,group\npatient1_a,1\n", r"groups.csv: no group for patient1_b, patient2_a, patient3_a\. Add 3 line"),
    ],
)
def test_a_wrong_table_of_groups(raw: RawDataset, text: str, message: str) -> None:
    (raw.folder / "groups.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        fingerprint_of(raw)


def test_intensities_of_any_size() -> None:
    rng = np.random.default_rng(0)
    channel = (1.7e6 + rng.normal(0, 1, (4, 8, 8))).astype(np.float32)
    stats = measure_intensities(channel, np.zeros(channel.shape, bool))
    assert stats.mean == pytest.approx(float(channel.astype(np.float64).mean()), rel=1e-12)
    assert stats.std == pytest.approx(float(channel.astype(np.float64).std()), rel=1e-9)
    assert stats.foreground_quantiles == ()
    assert stats.foreground_mean == 0.0
    assert not stats.integer


def test_quantiles_of_a_large_image_are_close_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLED_VOXELS", 5000)
    channel = np.arange(40_000, dtype=np.float32).reshape(10, 50, 80)
    foreground = channel >= 20_000
    stats = measure_intensities(channel, foreground)
    assert stats == measure_intensities(channel, foreground)
    assert len(stats.image_quantiles) == 201
    assert stats.image_quantiles[100] == pytest.approx(20_000, rel=0.05)
    assert stats.foreground_quantiles[100] == pytest.approx(30_000, rel=0.05)
    assert (stats.minimum, stats.maximum, stats.integer) == (0.0, 39_999.0, True)


def test_the_typical_component_is_neither_a_stray_voxel_nor_the_largest() -> None:
    mask = np.zeros((1, 40, 40), bool)
    for index in range(6):
        mask[0, 5 * index : 5 * index + 3, 0:3] = True  # six lesions of 3 x 3
    mask[0, 0:5, 20:25] = True  # a larger one
    mask[0, 39, ::4] = True  # stray pixels
    stats = measure_class(mask, (1.0, 2.0, 2.0))
    assert stats.component_extent_mm == (1.0, 6.0, 6.0)
    assert stats.components == 17
    assert stats.largest_component_mm3 == 100.0
    assert stats.volume_mm3 == mask.sum() * 4


def test_an_absent_class_has_no_entry() -> None:
    image = Volume(np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3), Geometry((1.0, 1.0, 1.0)))
    assert measure_case("a", "", image, np.zeros((3, 3, 3), np.uint8), dataset()).classes == {}
    assert measure_class(np.zeros((1, 2, 2), bool), (1.0, 1.0, 1.0)).components == 0


def test_regions_are_measured_as_regions() -> None:
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 2:6, 2:6] = 1
    labels[0, 3:5, 3:5] = 2
    image = Volume(labels[None].astype(np.float32), Geometry((1.0, 1.0, 1.0)))
    regions = LabelSet({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
    spec = replace(dataset(), labels=regions)
    classes = measure_case("a", "", image, labels, spec).classes
    assert (classes["whole"].voxels, classes["core"].voxels) == (16, 4)
