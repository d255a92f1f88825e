import errno
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import DatasetError, ImageFileError
from autosam_net.imageio import (
    READERS,
    Reader,
    count_numbers,
    read_case,
    read_image,
    read_label,
    split_ending,
    write_fractions,
    write_label,
)

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
VOLUMES = (".nii.gz", ".nii", ".mha", ".nrrd")
FLAT_DIRECTION = (0.8, -0.6, 0.6, 0.8)


def labels(shape=(3, 4, 5), high=4):
    return np.random.default_rng(0).integers(0, high, shape).astype(np.int64)


def same_place(found: Geometry, expected: Geometry) -> bool:
    return (
        found.dimensions == expected.dimensions
        and np.allclose(found.spacing, expected.spacing)
        and np.allclose(found.origin, expected.origin, atol=1e-4)
        and np.allclose(found.direction, expected.direction, atol=1e-6)
    )


@pytest.mark.parametrize("ending", VOLUMES)
def test_volume_keeps_values_and_geometry(tmp_path, ending):
    geometry = Geometry((8.0, 1.5, 1.25), (10.5, -20.25, 30.0), OBLIQUE)
    write_label(tmp_path / f"a{ending}", labels(), geometry)
    again = read_label(tmp_path / f"a{ending}")
    assert again.array.shape == (1, 3, 4, 5)
    assert again.array.dtype == np.uint8
    assert np.array_equal(again.array[0], labels())
    assert same_place(again.geometry, geometry)
    assert again.geometry.calibrated
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


@pytest.mark.parametrize("ending", VOLUMES)
def test_flat_file_stays_flat(tmp_path, ending):
    geometry = Geometry((1.0, 0.5, 0.25), (1.0, 2.0), FLAT_DIRECTION, dimensions=2)
    write_label(tmp_path / f"a{ending}", labels((1, 4, 5)), geometry)
    again = read_label(tmp_path / f"a{ending}")
    assert again.array.shape == (1, 1, 4, 5)
    assert same_place(again.geometry, geometry)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff"])
def test_plain_images_keep_values_and_have_no_spacing(tmp_path, ending):
    write_label(tmp_path / f"a{ending}", labels((1, 4, 5)), Geometry((1.0, 1.0, 1.0), dimensions=2))
    again = read_label(tmp_path / f"a{ending}")
    assert np.array_equal(again.array[0], labels((1, 4, 5)))
    assert again.geometry.spacing == (1.0, 1.0, 1.0)
    assert again.geometry.dimensions == 2
    assert not again.geometry.calibrated


def test_every_writable_ending_is_covered():
    writable = {ending for ending in READERS if READERS.get(ending).write}
    assert writable >= {*VOLUMES, ".png", ".bmp", ".tif", ".tiff"}


@pytest.mark.parametrize("ending", [*VOLUMES, ".png", ".tif"])
def test_many_labels_take_sixteen_bits(tmp_path, ending):
    high = labels((1, 4, 5), 60_000)
    write_label(tmp_path / f"a{ending}", high, Geometry((1.0, 1.0, 1.0)))
    assert np.array_equal(read_label(tmp_path / f"a{ending}").array[0], high)


@pytest.mark.parametrize("value", [-1, 70_000])
def test_values_that_do_not_fit_are_refused(tmp_path, value):
    with pytest.raises(ImageFileError, match=r"must lie in 0\.\.65535"):
        write_label(tmp_path / "a.nii.gz", np.full((1, 2, 2), value), Geometry((1.0, 1.0, 1.0)))
    assert not list(tmp_path.iterdir())


def test_lossy_formats_hold_no_labels(tmp_path):
    with pytest.raises(ImageFileError, match=r"cannot hold a label map exactly. Choose one of .*\.nii\.gz"):
        write_label(tmp_path / "a.jpg", labels(), Geometry((1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("case.nii.gz", ("case", ".nii.gz")),
        ("a.b.nii", ("a.b", ".nii")),
        ("SCAN.PNG", ("SCAN", ".png")),
        ("case_0000.tiff", ("case_0000", ".tiff")),
    ],
)
def test_split_ending(name, expected):
    assert split_ending(name) == expected


def test_unknown_ending_lists_the_known():
    with pytest.raises(ImageFileError, match=r"a\.doc: no reader for this file ending; known: .*\.nii\.gz"):
        split_ending("a.doc")


def test_missing_file(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.nii\.gz: no such file"):
        read_image(tmp_path / "a.nii.gz")


def test_image_is_float32(tmp_path):
    write_label(tmp_path / "a.nii.gz", labels(), Geometry((1.0, 1.0, 1.0)))
    assert read_image(tmp_path / "a.nii.gz").array.dtype == np.float32


def test_channels_are_stacked_in_order(tmp_path):
    for channel in range(3):
        write_label(tmp_path / f"a_{channel:04d}.nii.gz", labels() * 0 + channel, Geometry((2.0, 1.0, 1.0)))
    case = read_case(sorted(tmp_path.iterdir()))
    assert case.array.shape == (3, 3, 4, 5)
    assert case.array[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert case.geometry.spacing == (2.0, 1.0, 1.0)


def test_channels_of_different_shape_or_spacing_are_refused(tmp_path):
    first, small, fine = (tmp_path / f"{name}.nii.gz" for name in ("first", "small", "fine"))
    write_label(first, labels(), Geometry((2.0, 1.0, 1.0)))
    write_label(small, labels((3, 4, 4)), Geometry((2.0, 1.0, 1.0)))
    write_label(fine, labels(), Geometry((2.0, 1.0, 0.5)))
    with pytest.raises(DatasetError, match=r"small.*shape .*\(3, 4, 4\), that of first\.nii\.gz is \(3, 4, 5\)"):
        read_case([first, small])
    with pytest.raises(DatasetError, match=r"fine.*spacing .*\(2, 1, 0\.5\), that of first\.nii\.gz is \(2, 1, 1\)"):
        read_case([first, fine])


def test_third_party_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(READERS, "_entries", dict(READERS._entries))
    READERS.register(".npy")(Reader(lambda path: Volume(np.load(path)[None], Geometry((1.0, 1.0, 1.0)))))
    np.save(tmp_path / "a.npy", labels())
    assert np.array_equal(read_label(tmp_path / "a.npy").array[0], labels())
    with pytest.raises(ImageFileError, match="cannot hold a label map"):
        write_label(tmp_path / "a.npy", labels(), Geometry((1.0, 1.0, 1.0)))


def test_half_numbers_and_nan_are_no_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(READERS, "_entries", dict(READERS._entries))
    READERS.register(".npy")(Reader(lambda path: Volume(np.load(path)[None], Geometry((1.0, 1.0, 1.0)))))
    for value, shown in ((1.5, "1.5"), (np.nan, "nan")):
        np.save(tmp_path / "a.npy", np.array([[[0.0, value]]]))
        with pytest.raises(ImageFileError, match=f"value {shown}, expected whole numbers"):
            read_label(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([[[0.0, 2.0]]]))
    assert read_label(tmp_path / "a.npy").array.dtype == np.int32


def test_import_stays_light():
    code = (
        "import sys, json, autosam_net.imageio;"
        "print(json.dumps([m for m in ('torch', 'SimpleITK', 'PIL', 'skimage', 'pydicom') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    write_label(path, labels((1, 4, 5)), Geometry((1.0, 1.0, 1.0)))
    before = path.read_bytes()
    with pytest.raises(ImageFileError, match=r"cannot hold a label map of 2 slices"):
        write_label(path, labels((2, 4, 5)), Geometry((1.0, 1.0, 1.0)))
    assert path.read_bytes() == before
    assert list(Path(tmp_path).iterdir()) == [path]


@pytest.mark.parametrize("ending", [ending for ending in READERS if READERS.get(ending).write])
@pytest.mark.parametrize("limit", [0, 500, 5000])
def test_a_file_that_may_not_grow_is_refused_by_the_system(tmp_path, ending, limit):
    flat = ending in (".png", ".bmp")
    geometry = Geometry((1.0, 1.0, 1.0), dimensions=2) if flat else Geometry((2.0, 1.0, 1.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_label(tmp_path / f"a{ending}", labels((1 if flat else 4, 100, 90), 250), geometry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / f"a{ending}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", VOLUMES)
def test_fractions_keep_values_and_geometry(tmp_path, ending):
    geometry = Geometry((8.0, 1.5, 1.25), (10.5, -20.25, 30.0), OBLIQUE)
    fractions = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    write_fractions(tmp_path / f"a{ending}", fractions, geometry)
    again = read_image(tmp_path / f"a{ending}")
    assert np.array_equal(again.array[0], fractions.astype(np.float32))
    assert same_place(again.geometry, geometry)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_fractions_become_grey_values_where_a_format_has_no_more(tmp_path, ending):
    write_fractions(tmp_path / f"a{ending}", np.array([[[0.0, 0.5, 1.0]]]), Geometry((1.0, 1.0, 1.0), dimensions=2))
    assert read_image(tmp_path / f"a{ending}").array.ravel().tolist() == [0, 128, 255]


def test_a_format_without_a_way_to_write_takes_no_fractions(tmp_path):
    with pytest.raises(ImageFileError, match=r"cannot hold a label map exactly"):
        write_fractions(tmp_path / "a.jpg", np.zeros((1, 2, 2)), Geometry((1.0, 1.0, 1.0), dimensions=2))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd", ".tif", ".png"])
def test_headers_say_how_much_a_file_holds(tmp_path: Path, ending: str) -> None:
    shape = (1, 6, 7) if ending == ".png" else (5, 6, 7)
    write_label(tmp_path / f"a{ending}", np.ones(shape, np.uint8), Geometry((1.0, 1.0, 1.0)))
    assert count_numbers([tmp_path / f"a{ending}"] * 2) == 2 * np.prod(shape)


def test_a_broken_header_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"none")
    assert count_numbers([tmp_path / "a.nii.gz", tmp_path / "missing.png"]) == 0
