"""On a cluster, in parts, and by several processes the same comes out as in one process."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net import parallel
from autosam_net.embedding import source
from autosam_net.embedding.cache import CachedEmbedding
from autosam_net.embedding.embed import embed_dataset, preprocessed_cases
from autosam_net.errors import AutosamError, DatasetError, UsageError
from autosam_net.evaluation.report import evaluate_folder
from autosam_net.inference.load import load_model
from autosam_net.inference.model import Model
from autosam_net.parallel import Part, dask_cluster, map_cases
from autosam_net.preprocessing.preprocess import cases_folder, preprocess_dataset
from autosam_net.training.checkpoint import load_tensors
from autosam_net.training.run import TrainingOptions
from autosam_net.training.team import Team
from autosam_net.training.train import train_head
from tests.support import Prepared, with_unet
from tests.team_program import train_without_dropout

TEAM = Path(__file__).parent / "team_program.py"
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own; a cluster warns of a slow machine


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Return the address of a Dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def model(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("results"))
    train_head(prepared.dataset, prepared.plan, "linear", 0, TrainingOptions(epochs=1), folders)
    return load_model(900, folders=folders)


def images_of(prepared: Prepared) -> list[Path]:
    return sorted((prepared.dataset.folder / "imagesTr").glob("*.nii.gz"))[:3]


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return sorted(csv.reader(file))


def maps_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def test_a_cluster_works_on_cases_and_hands_errors_back(scheduler: str) -> None:
    def place(number: int) -> int:
        return os.getpid()

    def fail(name: str) -> None:
        raise DatasetError(f"{name}: label file is missing")

    def die(name: str) -> None:
        from distributed import KilledWorker

        raise KilledWorker(name, None, 3)

    with dask_cluster(scheduler):
        assert os.getpid() not in map_cases(place, range(4), "asking", workers=1)
        with pytest.raises(DatasetError, match=r"^a: label file is missing$"):
            map_cases(fail, ["a", "b"], "checking")
        with pytest.raises(AutosamError, match=r"reading: a worker process was killed.*more memory"):
            map_cases(die, ["a"], "reading")
    assert map_cases(place, range(2), "asking", workers=1) == [os.getpid()] * 2


def test_a_function_is_sent_to_a_worker_once(scheduler: str) -> None:
    class Slow:
        loaded = 0

        def __call__(self, number: int) -> tuple[int, int]:
            self.loaded += 1  # as an encoder is kept once it is loaded
            return os.getpid(), self.loaded

    with dask_cluster(scheduler):
        calls = map_cases(Slow(), range(12), "loading")
    for worker in {pid for pid, _ in calls}:
        counts = sorted(count for pid, count in calls if pid == worker)
        assert counts == list(range(counts[0], counts[0] + len(counts)))


def test_without_a_scheduler_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.setattr(parallel, "CONNECTING", 0.5)
    with (
        pytest.raises(UsageError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"),
        dask_cluster("tcp://127.0.0.1:9"),
    ):
        pass


def test_without_dask_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'autosam_net\[dask\]'"), dask_cluster("tcp://127.0.0.1:9"):
        pass


def test_a_cluster_preprocesses_and_encodes_the_same(prepared: Prepared, scheduler: str, tmp_path: Path) -> None:
    here = prepared.folders
    there = replace(here, preprocessed=tmp_path / "preprocessed")
    names = preprocessed_cases(prepared.dataset, here)[:2]
    with dask_cluster(scheduler):
        preprocess_dataset(prepared.dataset, prepared.plan, there)
        # the tiny encoder is known to this process only, so that the cluster is given the image itself
        given = replace(prepared.plan.encoding, encoder="image", weights=None, pixels=False)
        plan = replace(prepared.plan, encoding=given)
        apart = embed_dataset(prepared.dataset, plan, there, names, views=2)
    for name in names:
        first, second = (cases_folder(prepared.dataset, folders) / name for folders in (here, there))
        for file in ("image.npy", "labels.npy", "case.json"):
            assert (first / file).read_bytes() == (second / file).read_bytes()
    together = embed_dataset(prepared.dataset, plan, here, names, views=2)
    assert [content(entry) for entry in apart] == [content(entry) for entry in together]


def content(entry: CachedEmbedding) -> tuple[bytes, bytes]:
    return entry.embedding.path.read_bytes(), entry.labels.path.read_bytes()


def test_a_cluster_predicts_and_evaluates_the_same(prepared: Prepared, scheduler: str, tmp_path: Path) -> None:
    folders = replace(prepared.folders, results=tmp_path / "results")
    train_head(prepared.dataset, with_unet(prepared.plan), "unet", 0, TrainingOptions(epochs=1), folders)
    model, images, one, many = (
        load_model(900, folders=folders),
        images_of(prepared),
        tmp_path / "one",
        tmp_path / "many",
    )
    model.predict_folder(images, one)
    with dask_cluster(scheduler):
        model.predict_folder(images, many)
    assert maps_of(one) == maps_of(many) and len(maps_of(one)) == len(images)
    assert rows_of(one) == rows_of(many)
    alone = evaluate_folder(one, many, prepared.dataset.labels, ".nii.gz", workers=1)
    with dask_cluster(scheduler):
        assert evaluate_folder(one, many, prepared.dataset.labels, ".nii.gz") == alone


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_share_all_items(count: int) -> None:
    parts = [Part(index, count).of(range(5)) for index in range(count)]
    assert sorted(item for part in parts for item in part) == [0, 1, 2, 3, 4]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_predict_into_one_folder(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    images, one, many = images_of(prepared), tmp_path / "one", tmp_path / "many"
    model.predict_folder(images, one)
    written = [model.predict_folder(images, many, part=Part(index, 2)) for index in range(2)]
    assert sorted(map(len, written)) == [1, 2]
    assert maps_of(one) == maps_of(many) and rows_of(one) == rows_of(many)


def test_parts_preprocess_into_one_folder(prepared: Prepared, tmp_path: Path) -> None:
    folders = replace(prepared.folders, preprocessed=tmp_path)
    done = [preprocess_dataset(prepared.dataset, prepared.plan, folders, 1, Part(index, 4)) for index in range(4)]
    assert [len(cases) for cases in done] == [2, 2, 1, 1]
    assert preprocessed_cases(prepared.dataset, folders) == preprocessed_cases(prepared.dataset, prepared.folders)


def test_two_processes_train_the_head_that_one_trains(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 and no dropout: what differs is the order in which gradients are added up."""
    monkeypatch.setattr(source, "supports_bfloat16", lambda device: False)
    alone = train_without_dropout(prepared.dataset, prepared.folders, tmp_path / "one", "cpu")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    words = [str(TEAM), str(prepared.root), str(tmp_path / "two"), str(prepared.plan.encoding.weights)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    answer = subprocess.run([*launcher, *words], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    for folder, apart in zip(alone, (2e-5, 1e-4), strict=True):
        together = tmp_path / "two" / folder.relative_to(tmp_path / "one")
        one, two = (load_tensors(place / "model.safetensors")[0] for place in (folder, together))
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            np.testing.assert_allclose(tensor, two[name], atol=apart, err_msg=name)


def test_a_batch_must_be_shared_equally() -> None:
    Team(Part(1, 4)).check_batch(16)
    with pytest.raises(UsageError, match="3 processes cannot share a batch of 16 equally"):
        Team(Part(0, 3)).check_batch(16)


def test_a_process_alone_is_a_team() -> None:
    team = Team()
    assert team.leads and team.agreed(7, max) == 7
    team.wait()
