"""Published datasets that people bring: every known form gives the same images, whatever is wrong is one clear line."""

import functools
import gc
import gzip
import hashlib
import http.server
import pickle
import threading

import copies
import numpy as np
import pytest
from click.testing import CliRunner
from imported import imported, of_class, refused

from metarun.cli.data import command as data_verb
from metarun.datasets import DATASETS
from metarun.datasets import build as build_source
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache, leftovers, published
from metarun.datasets.options import CifarFSOptions, CubOptions, EmnistOptions, FC100Options, TieredImagenetOptions
from metarun.datasets.sizes import sizes_in, sizes_of
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")
SMALL = ("tieredimagenet", "cifar-fs", "fc100", "cub", "emnist")

pytestmark = pytest.mark.usefixtures("own_cache", "small_copies")


class TestCub:
    @pytest.mark.parametrize("way", ["folder", "images", "tgz"])
    def test_both_splits(self, tmp_path, way):
        folder = copies.cub_folder(tmp_path)
        if way == "tgz":
            folder = copies.tarred(folder, tmp_path / "CUB_200_2011.tgz")
        source = imported("cub", folder / "images" if way == "images" else folder)
        sizes = {split: len(pool.names) for split, pool in source.pools.items()}
        assert sizes == {"train": 100, "val": 50, "test": 50}
        assert source.pools["val"].names[:2] == ("002.Laysan_Albatross", "006.Least_Auklet")
        other = build_source(CubOptions(split="140-30-30"))
        assert {split: len(pool.names) for split, pool in other.pools.items()} == {"train": 140, "val": 30, "test": 30}
        name = "044.Frigatebird"
        np.testing.assert_array_equal(of_class(other, "val", name), of_class(source, "test", name))
        for each in (CubOptions(), CubOptions(split="140-30-30")):
            assert sizes_in(build_source(each)) == sizes_of(each)

    def test_splits_stay_as_they_are(self):
        """Reject numbers that are counted from 0, by which the even ones were for training."""
        from metarun.datasets import cub

        by_number = cub.division("100-50-50")
        assert {split: {int(name[:3]) % 4 for name in names} for split, names in by_number.items()} == {
            "train": {1, 3},
            "val": {2},
            "test": {0},
        }
        told = hashlib.sha256(repr(sorted(cub.division("140-30-30").items())).encode()).hexdigest()
        assert told[:8] == "31385d0e", "results are no longer comparable"

    def test_what_is_missing_or_foreign_is_told(self, tmp_path):
        folder = copies.cub_folder(tmp_path) / "images"
        one = next((folder / "200.Common_Yellowthroat").iterdir())
        one.rename(tmp_path / "away.jpg")
        assert "200 classes of 200; 399 images of 400: the copy is not complete" in refused("cub", folder)
        (tmp_path / "away.jpg").rename(one)
        (folder / "200.Common_Yellowthroat").rename(folder / "201.Dodo")
        assert "1 class (201.Dodo) whose names are not those of CUB-200-2011" in refused("cub", folder)

    def test_standard_is_of_the_training_classes_of_its_split(self, tmp_path):
        """Reject the moments of all classes, or of the other split."""
        imported("cub", copies.cub_folder(tmp_path))
        options = CubOptions(split="140-30-30", normalisation="standard")
        source = build_source(options)
        pixels = np.asarray(source.pools["train"].images, float) / 255
        one = source.sample("train", 0, 1, Shape(3, 1, 1), 0).support_x
        back = source.pixels(one)
        np.testing.assert_allclose(one, (back - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2)), atol=1e-5)


class TestEmnist:
    @pytest.mark.parametrize("way", ["folder", "zip", "unpacked", "parts"])
    def test_images_are_turned_and_classes_even_and_odd(self, tmp_path, way):
        """Reject images as they lie, which are mirrored at the diagonal, and ink that is dark."""
        images = copies.emnist_files(tmp_path / "gzip")
        paths = [tmp_path / "gzip"]
        if way == "zip":
            paths = [copies.zipped(tmp_path / "gzip", tmp_path / "gzip.zip")]
        if way == "unpacked":
            for each in (tmp_path / "gzip").iterdir():
                each.with_suffix("").write_bytes(gzip.decompress(each.read_bytes()))
                each.unlink()
        if way == "parts":
            paths = sorted((tmp_path / "gzip").iterdir())
        source = imported("emnist", *paths)
        assert set(source.pools) == {"val", "test"}
        assert source.pools["val"].names[:6] == tuple("02468A") and source.pools["test"].names[-1] == "z"
        assert len(source.pools["val"].names) == len(source.pools["test"].names) == 31
        np.testing.assert_array_equal(of_class(source, "test", "B")[..., 0], images[11])
        np.testing.assert_array_equal(of_class(source, "test", "z")[..., 0], images[61])
        dark = build_source(EmnistOptions(ink=0)).sample("test", 0, 1, Shape(2, 1, 1), 0)
        light = source.sample("test", 0, 1, Shape(2, 1, 1), 0)
        np.testing.assert_allclose(light.support_x, 1 - dark.support_x, atol=1e-6)

    def test_what_is_wrong_is_one_line(self, tmp_path):
        copies.emnist_files(tmp_path)
        images = tmp_path / "emnist-byclass-test-images-idx3-ubyte.gz"
        labels = tmp_path / "emnist-byclass-test-labels-idx1-ubyte.gz"
        pixels, marks = images.read_bytes(), labels.read_bytes()
        plain = gzip.decompress(marks)
        for path, data, words in (
            (labels, gzip.compress(plain[:-1]), "ends too early"),
            (labels, gzip.compress(b"\1" + plain[1:]), "is not an IDX file of bytes with 1 dimensions"),
            (labels, gzip.compress(plain[:-1] + b"\x3e"), "has the label 62: at most 61"),
            (labels, gzip.compress(plain[:-1] + b"\0"), None),
            (labels, b"nothing", "is not a readable gzip file"),
            (images, pixels[:-2000], "gz"),
            (images, gzip.compress(gzip.decompress(pixels)[:-1]), "ends too early"),
        ):
            path.write_bytes(data)
            if words:
                assert words in refused("emnist", tmp_path)
            labels.write_bytes(marks)
        images.unlink()
        assert "expected gzip.zip, or emnist-byclass-{train,test}-{images" in refused("emnist", tmp_path)

    def test_it_is_for_tests_only(self):
        from metarun.experiments.config.load import load
        from metarun.experiments.errors import SpecError

        with pytest.raises(SpecError, match="emnist has no training classes: train on omniglot"):
            load("omniglot/protonet", ["dataset={name: emnist}"])


class TestTieredImagenet:
    @pytest.mark.parametrize("form", ["pickles", "pickles tar", "arrays", "arrays swapped", "arrays tar"])
    def test_both_forms(self, tmp_path, form, capsys):
        """Find exchanged channels by their brightness. Rejected: blue photographs, without a word."""
        images = copies.tiered_images()
        stored = {split: each[..., ::-1] for split, each in images.items()} if "swapped" in form else images
        write = copies.tiered_pickles if form.startswith("pickles") else copies.tiered_arrays
        path = write(tmp_path / "tiered-imagenet", stored)
        if form.endswith("tar"):
            path = copies.tarred(path, tmp_path / "tiered-imagenet.tar")
        source = imported("tieredimagenet", path)
        assert capsys.readouterr().err.count("red and blue are exchanged in") == 3 * ("swapped" in form)
        name = {"arrays": "4", "pickles": "val 0 (0)"}[form.split()[0]]
        np.testing.assert_array_equal(of_class(source, "val", name), images["val"][0])
        assert len({name for split in SPLITS for name in source.pools[split].names}) == 10
        mean = np.concatenate([each for each in images["train"]]).mean((0, 1, 2)) / 255
        assert cache.read("tieredimagenet-train").facts["mean"] == pytest.approx(mean.tolist())
        for each in (TieredImagenetOptions(),):
            assert sizes_in(source) == sizes_of(each)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda folder: (folder / "val_labels.pkl").unlink(), "val_images.npz has no labels in it, nor beside it"),
            (lambda folder: (folder / "val_images.npz").unlink(), "no val split: expected val_images_png.pkl or"),
            (
                lambda folder: (folder / "val_labels.pkl").write_bytes(pickle.dumps({"labels": [0]})),
                "val_images.npz has 1 labels, but more images",
            ),
            (
                lambda folder: (folder / "val_labels.pkl").write_bytes(pickle.dumps({"labels": [0] * 99})),
                "val_images.npz has 99 labels for 6 images",
            ),
            (
                lambda folder: np.savez(folder / "val_images.npz", images=np.zeros((1, 8, 8, 3), np.uint8)),
                r"val_images.npz has images.npy of uint8[1, 8, 8, 3], not uint8 images of 84x84x3",
            ),
            (
                lambda folder: np.savez(folder / "val_images.npz", images=np.array([{}], object)),
                "not uint8 images of 84x84x3",
            ),
            (lambda folder: np.savez(folder / "val_images.npz", x=np.zeros(1)), "has no images under"),
            (
                lambda folder: (folder / "val_images.npz").write_bytes(b"nothing"),
                "val_images.npz is not a readable npz",
            ),
        ],
    )
    def test_what_is_wrong_is_one_line(self, tmp_path, change, words):
        folder = copies.tiered_arrays(tmp_path / "tiered", copies.tiered_images())
        change(folder)
        assert words in refused("tieredimagenet", folder)


@pytest.mark.parametrize("name", SMALL)
class TestEveryDataset:
    def test_what_is_absent_says_how_to_get_it(self, name):
        fetched = name in published.ADDRESSES
        with pytest.raises(DataError, match=f"metarun data import {name} PATH") as told:
            build_source(DATASETS[name]())
        assert (f"metarun data fetch {name}" in str(told.value)) == fetched
        way = "`metarun data fetch` or `import`" if fetched else "`metarun data import`"
        assert f"{name:<16}not here: {way} {name}" in CliRunner().invoke(data_verb, ["list"]).output
        assert all(size.classes for size in sizes_of(DATASETS[name]()).values())

    def test_nothing_of_it_in_a_folder(self, name, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing")
        assert "expected " in refused(name, tmp_path)
        assert "does not exist" in refused(name, tmp_path / "nothing")

    def test_list_verify_and_clean(self, name, tmp_path):
        published.import_from(published.layout_of(name), [copies.small(name, tmp_path)])
        images = sum(len(cache.read(part).images) for part in cache.PARTS[name])
        assert f"{images} images in" in CliRunner().invoke(data_verb, ["list"]).output
        assert CliRunner().invoke(data_verb, ["verify", name]).output.count("good") == len(cache.PARTS[name])
        part = cache.PARTS[name][-1]
        content = bytearray(cache.array_path(part).read_bytes())
        content[-1] ^= 1
        cache.array_path(part).write_bytes(content)
        done = CliRunner().invoke(data_verb, ["verify", name])
        assert isinstance(done.exception, DataError) and f"{part}: damaged" in str(done.exception)
        del done
        gc.collect()  # its traceback holds the images, and so the lock
        cache.rename(part, f"{part}-new")
        (copy,) = leftovers.stale()
        assert copy.reason == "left by an import that was killed" and leftovers.discard(copy)
        assert not list(leftovers.stale())


class TestFetch:
    @pytest.fixture
    def served(self, tmp_path):
        """Start a server on this machine; yield its address and the folder that it serves."""

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

        (tmp_path / "served").mkdir()
        handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/", tmp_path / "served"
            server.shutdown()

    @pytest.mark.parametrize("name", ["cifar-fs", "fc100", "emnist"])
    def test_archives_are_checked_and_read(self, name, served, tmp_path, monkeypatch):
        address, folder = served
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        pack = copies.zipped if name == "emnist" else copies.tarred
        (archive,) = published.ADDRESSES[name][1]
        data = pack(copies.small(name, tmp_path), folder / archive).read_bytes()
        monkeypatch.setitem(published.ADDRESSES, name, (address, {archive: "0" * 32}))
        done = CliRunner().invoke(data_verb, ["fetch", name])
        assert isinstance(done.exception, DataError) and f"`metarun data import {name} PATH...`" in str(done.exception)
        monkeypatch.setitem(published.ADDRESSES, name, (address, {archive: hashlib.md5(data).hexdigest()}))
        assert f"{name} is ready in" in CliRunner().invoke(data_verb, ["fetch", name]).output
        assert build_source(DATASETS[name]()).pools["test"].counts.min() == copies.IMAGES
        assert "is here already" in CliRunner().invoke(data_verb, ["fetch", name]).output


def test_options_are_described_by_what_they_do():
    """Compare the names of the options with those of their modules, which `build` finds by them."""
    for options in (CifarFSOptions(), FC100Options(), CubOptions(), EmnistOptions(), TieredImagenetOptions()):
        assert published.layout_of(options.name).name == options.name
        assert set(cache.PARTS[options.name]) == {
            published.layout_of(options.name).cached(part) for part in published.layout_of(options.name).classes
        }
