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

from metarun.cli.data import command as data_verb
from metarun.datasets import DATASETS, cifar100
from metarun.datasets import build as build_source
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache, leftovers, published
from metarun.datasets.options import CifarFSOptions, CubOptions, EmnistOptions, FC100Options, TieredImagenetOptions
from metarun.datasets.sizes import sizes_in, sizes_of
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")
SMALL = ("tieredimagenet", "cifar-fs", "fc100", "cub", "emnist")

pytestmark = pytest.mark.usefixtures("own_cache", "small")


@pytest.fixture
def small(monkeypatch):
    copies.shrink(monkeypatch)


def imported(name, *paths):
    published.import_from(published.layout_of(name), paths)
    return build_source(DATASETS[name]())


def refused(name, *paths):
    with pytest.raises(DataError) as told:
        published.import_from(published.layout_of(name), paths)
    assert not list(cache.folder().glob("*.npy")), "something is kept"
    return str(told.value)


def of_class(source, split, name):
    """Return the images of a class in a pool."""
    pool = source.pools[split]
    number = pool.names.index(name)
    first = int(pool.counts[:number].sum())
    return np.asarray(pool.images[first : first + pool.counts[number]])


class TestCifar100:
    @pytest.mark.parametrize(
        ("dataset", "form"),
        [
            *(
                ("cifar-fs", form)
                for form in ("python", "python tar", "folder around", "binary", "binary tar", "classes")
            ),
            ("fc100", "binary"),
        ],
    )
    def test_every_form_gives_the_same(self, tmp_path, dataset, form):
        """Reject channels that are read as row, column, channel, and a class without its test images."""
        kind = form.split()[0]
        path = {"binary": copies.cifar_binary, "classes": copies.cifar_classes}.get(kind, copies.cifar_python)(tmp_path)
        if form.endswith("tar"):
            path = copies.tarred(path, tmp_path / "any name.tar.gz")
        if form == "folder around":
            copies.tarred(path, tmp_path / "downloads.tgz").rename(tmp_path / "cifar-100-python.tar.gz")
            (tmp_path / "cifar-100-python").rename(tmp_path / ".hidden")
            path = tmp_path
        source = imported(dataset, path)
        images, names = copies.cifar_images()
        for split in SPLITS:
            known = [name for name in names if cifar100.divisions()[dataset][name] == split]
            assert list(source.pools[split].names) == known
            assert source.pools[split].counts.tolist() == [copies.IMAGES] * len(known)
            for name in (known[0], known[-1]):
                np.testing.assert_array_equal(of_class(source, split, name), images[names.index(name)])

    def test_another_archive_than_the_original_is_told(self, tmp_path, capsys, monkeypatch):
        """Compare the md5 of what has the name of an original; its pixels cannot be compared otherwise."""
        folder = copies.cifar_python(tmp_path)
        imported("cifar-fs", folder)
        assert capsys.readouterr().err.count("is not the original") == 3
        archive = copies.tarred(folder, tmp_path / "cifar-100-python.tar.gz")
        imported("cifar-fs", archive)
        assert f"warning: {archive} is not the original" in capsys.readouterr().err
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(published.CIFAR100[1], archive.name, md5)
        imported("cifar-fs", archive)
        assert "original" not in capsys.readouterr().err

    def test_splits_stay_as_they_are(self):
        told = {name: sorted(members.items()) for name, members in cifar100.divisions().items()}
        assert hashlib.sha256(repr(told).encode()).hexdigest()[:8] == "4d082145", "results are no longer comparable"

    def test_superclasses_of_fc100_are_in_one_split(self):
        """Reject a division by class, such as that of CIFAR-FS."""
        import csv
        from importlib.resources import files

        text = files("metarun.datasets").joinpath("cifar100_splits.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
        splits = {
            each: {row["fc100"] for row in rows if row["superclass"] == each}
            for each in {r["superclass"] for r in rows}
        }
        assert len(splits) == 20 and all(len(each) == 1 for each in splits.values())
        assert sum(each == {"train"} for each in splits.values()) == 12
        known = [dict.fromkeys(SPLITS, 0) for _ in range(2)]
        for row in rows:
            known[0][row["cifar-fs"]] += 1
            known[1][row["fc100"]] += 1
        assert known == [dict(zip(SPLITS, each, strict=True)) for each in ((64, 16, 20), (60, 20, 20))]

    @pytest.mark.parametrize("way", ["folder", "files", "tar", "zip"])
    def test_pickles_by_split(self, tmp_path, way, capsys):
        """Find the names of classes from label numbers, which are then compared."""
        folder = copies.cifar_pickles(tmp_path / "CIFAR-FS")
        paths = {
            "folder": lambda: [folder],
            "files": lambda: sorted(folder.iterdir(), reverse=True),
            "tar": lambda: [copies.tarred(folder, tmp_path / "CIFAR-FS.tar")],
            "zip": lambda: [copies.zipped(folder, tmp_path / "CIFAR-FS.zip")],
        }[way]()
        source = imported("cifar-fs", *paths)
        images, names = copies.cifar_images()
        np.testing.assert_array_equal(of_class(source, "val", "beaver"), images[names.index("beaver")])
        assert "warning" not in capsys.readouterr().err

    def test_both_datasets_in_one_folder(self, tmp_path):
        """Reject the pickles of CIFAR-FS, which come first by their names, as those of FC100."""
        copies.cifar_pickles(tmp_path / "x")
        source = imported("fc100", copies.cifar_pickles(tmp_path / "x", "fc100", "FC100"))
        assert [len(source.pools[split].names) for split in SPLITS] == [60, 20, 20]

    def test_numbers_that_are_not_those_of_the_archive_are_told(self, tmp_path, capsys):
        source = imported("cifar-fs", copies.cifar_pickles(tmp_path / "x", label=lambda number: 100 + number))
        told = "100 of 100 class names (100, 101, 103 and 97 more) are no names of CIFAR-100"
        assert told in capsys.readouterr().err
        assert source.pools["val"].names[0] == "104" and told in CliRunner().invoke(data_verb, ["list"]).output

    def test_the_splits_of_the_other_dataset_are_refused(self, tmp_path):
        """Reject an import of whatever has a number per image: FC100 as it is, and two classes that changed places."""
        told = refused("fc100", copies.cifar_pickles(tmp_path / "x", stem="FC100"))
        assert "train has 64 classes of 60" in told and "val has 16 classes of 20" in told
        images, names = copies.cifar_images()
        for split in SPLITS:
            for name, members in zip(names, images, strict=True):
                if cifar100.divisions()["cifar-fs"][{"beaver": "whale", "whale": "beaver"}.get(name, name)] == split:
                    (tmp_path / "y" / split / name).mkdir(parents=True)
                    for number, pixels in enumerate(members):
                        (tmp_path / "y" / split / name / f"{number}.png").write_bytes(copies.encoded(pixels))
        told = refused("cifar-fs", tmp_path / "y")
        assert "val has 1 classes of test: whale; test has 1 classes of val: beaver" in told

    def test_what_is_wrong_is_one_line(self, tmp_path):
        folder = copies.cifar_python(tmp_path)
        whole = (folder / "train").read_bytes()
        told = pickle.loads(whole)
        for change, words in (
            ({"fine_labels": told["fine_labels"][:-1]}, "not one number per image under fine_labels"),
            ({"fine_labels": [100, *told["fine_labels"][1:]]}, "image 0 has the label 100, not one of 0 to 99"),
            ({"fine_labels": [1, *told["fine_labels"][1:]]}, "aquarium_fish has 3 images of 2"),
            ({"data": told["data"][:, :-1]}, "no uint8 rows of 3072 under data"),
            ({"data": told["data"].astype(float)}, "no uint8 rows of 3072 under data"),
        ):
            (folder / "train").write_bytes(pickle.dumps(told | change))
            assert words in refused("cifar-fs", folder)
        (folder / "train").write_bytes(whole[:1000])
        assert "train is not a pickle of plain arrays" in refused("cifar-fs", folder)
        (folder / "train").write_bytes(pickle.dumps(print))
        assert "nothing in it was run" in refused("cifar-fs", folder)
        (folder / "train").write_bytes(whole)
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple"] * 100}))
        assert "has not the 100 class names of CIFAR-100" in refused("cifar-fs", folder)

    def test_class_folders_are_counted_before_they_are_decoded(self, tmp_path):
        path = copies.cifar_classes(tmp_path)
        (path / "data" / "apple" / "0.png").write_bytes(b"no image")
        (path / "data" / "worm" / "0.png").unlink()
        told = refused("cifar-fs", path)
        assert "worm has 1 images of 2" in told and "apple" not in told
        (path / "data" / "worm").rename(path / "data" / "snark")
        assert "1 class without a split (snark) whose names are not those of CIFAR-FS" in refused("cifar-fs", path)

    def test_a_few_equal_images_are_those_of_the_original_many_are_not(self, tmp_path, monkeypatch):
        """Reject an import whose test images are in training too."""
        images, names = copies.cifar_images()
        same = images.copy()
        same[names.index("whale"), 0] = same[names.index("apple"), 0]
        monkeypatch.setattr(copies, "cifar_images", lambda: (same, names))
        imported("cifar-fs", copies.cifar_python(tmp_path / "few"))
        same[names.index("whale")] = same[names.index("apple")]
        same[names.index("baby")] = same[names.index("bear")]
        with pytest.raises(DataError, match="4 images are in several classes, 4 of them in several splits"):
            imported("cifar-fs", copies.cifar_python(tmp_path / "many"))


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
