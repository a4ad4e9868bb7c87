"""Settings and fixtures that tests share: quiet TensorFlow, the folder of real data, small sources."""

import gc
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from metarun.experiments.system.startup import fast_kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(fast_kernels())

import numpy as np
import pytest
import slurm_cluster
import slurm_jobs

LONGEST = ("test_conformance", "test_slurm_stops", "test_followers", "test_train", "test_maml")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that at the end no process waits long for the other."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with omniglot/ and miniimagenet/; tests that need it are skipped without."""
    told = os.environ.get("METARUN_TEST_DATA")
    if not told:
        pytest.skip("METARUN_TEST_DATA names no folder with the real omniglot/ and miniimagenet/")
    return Path(told)


@pytest.fixture(scope="session")
def script():
    """Return a function that loads a file that is in no package, by its path in the repository, as a module."""

    def load(path: str) -> ModuleType:
        file = Path(__file__).parents[1] / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache for the whole session: letters are drawn and archives read once, also by several processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "cache").mkdir(exist_ok=True)
    return folder / "cache"


@pytest.fixture
def cache_folder(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARUN_CACHE", str(session_cache))
    return session_cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_source():
    """Return a function that makes an ImageSource of random images whose classes differ."""

    def make(classes: int = 12, images: int = 6, size: int = 16, channels: int = 1, **options):
        from metarun.datasets.images.source import ClassPool, ImageSource

        generator = np.random.default_rng(0)
        patterns = generator.integers(0, 2, (classes, 1, size, size, channels)) * 150
        noise = generator.integers(0, 100, (classes, images, size, size, channels))
        pixels = (patterns + noise).reshape(classes * images, size, size, channels).astype(np.uint8)
        pool = ClassPool(pixels, np.full(classes, images), tuple(f"class {n}" for n in range(classes)))
        rotations = options.pop("rotations", "none")
        splits = ("train", "val", "test")
        return ImageSource("fake", dict.fromkeys(splits, pool), rotations=dict.fromkeys(splits, rotations), **options)

    return make


@pytest.fixture
def eagerly():
    """Switch off compiling, which takes far longer than a few small steps."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def slurm():
    """Start a Slurm of two nodes and name it in the environment; arrays have at most two elements."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with slurm_cluster.cluster(longest=2) as configuration, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(configuration))
        yield


@pytest.fixture
def folder(tmp_path):
    """Make a folder with the spec of `slurm_jobs`."""
    (tmp_path / "tiny.yaml").write_text(slurm_jobs.SPEC)
    return tmp_path


@pytest.fixture(autouse=True, scope="module")
def graphs_are_freed():
    """Let a process of tests forget the programs of each file; it would hold those of all files otherwise."""
    if "tensorflow" in sys.modules:
        from metarun.algorithms.programs import free_graphs

        free_graphs()
    yield
    gc.collect()
