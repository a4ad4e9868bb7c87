"""Data that people bring: every known form is read, whatever is wrong is one clear line, and nothing of it is run."""

import contextlib
import csv
import functools
import hashlib
import http.server
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarun.datasets import cache, imagefolder, images, miniimagenet, omniglot, pickles
from metarun.datasets.errors import DataError
from metarun.datasets.fetch import download
from metarun.datasets.options import ImageFolderOptions, MiniImagenetOptions, OmniglotOptions
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def png(value=0, size=(84, 84), mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" else (value, value // 2, 255 - value)).save(data, "PNG")
    return data.getvalue()


class TestMiniImagenet:
    """A copy with 3 / 2 / 2 classes of 4 images, in all the forms that are about."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(miniimagenet, "CLASSES", {"train": 3, "val": 2, "test": 2})
        monkeypatch.setattr(miniimagenet, "IMAGES", 4)

    def entries(self):
        """(split, class, file name, bytes); the first red value tells class and image."""
        for number, split in enumerate(SPLITS):
            for each in range({"train": 3, "val": 2, "test": 2}[split]):
                for image in range(4):
                    yield (
                        split,
                        f"n{number}{each}",
                        f"n{number}{each}_{image}.png",
                        png(50 * number + 10 * each + image),
                    )

    def folders(self, root):
        for split, name, file, data in self.entries():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            (root / split / name / file).write_bytes(data)

    def tars(self, root):
        for split in SPLITS:
            with tarfile.open(root / f"{split}.tar.gz", "w:gz") as archive:
                for own, name, file, data in self.entries():
                    if own == split:
                        info = tarfile.TarInfo(f"{split}/{name}/{file}")
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))

    def csvs(self, root):
        (root / "images").mkdir()
        for split in SPLITS:
            with open(root / f"{split}.csv", "w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["filename", "label"])
                for own, name, image, data in self.entries():
                    if own == split:
                        (root / "images" / image).write_bytes(data)
                        rows.writerow([image, name])

    def pickled(self, root):
        for split in SPLITS:
            own = [
                (name, np.asarray(Image.open(io.BytesIO(data)))) for s, name, _, data in self.entries() if s == split
            ]
            members = {}
            for number, (name, _) in enumerate(own):
                members.setdefault(name, []).append(number)
            told = {"image_data": np.stack([pixels for _, pixels in own]), "class_dict": members}
            (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(told))

    @pytest.mark.parametrize("form", ["folders", "tars", "csvs", "pickled"])
    def test_every_form_gives_the_same(self, tmp_path, form):
        root = tmp_path / "copy"
        root.mkdir()
        getattr(self, form)(root)
        miniimagenet.import_from([root])
        source = miniimagenet.build(MiniImagenetOptions())
        assert source.pools["val"].names == ("n10", "n11")
        reds = source.pools["test"].images[:, 0, 0, 0].tolist()
        assert reds == [100, 101, 102, 103, 110, 111, 112, 113]
        assert source.sample("train", 0, 1, Shape(3, 1, 3), 0).support_x.shape == (1, 3, 84, 84, 3)

    def test_normalisation(self, tmp_path):
        self.folders(tmp_path)
        miniimagenet.import_from([tmp_path])
        shape = Shape(3, 1, 3)
        unit, standard, imagenet = (
            miniimagenet.build(MiniImagenetOptions(normalisation=name))
            .sample("train", 0, 1, shape, 0)
            .support_x.numpy()
            for name in ("unit", "standard", "imagenet")
        )
        values = 10 * np.arange(3)[:, None] + np.arange(4)  # red of the training images
        np.testing.assert_allclose(standard[..., 0], (unit[..., 0] * 255 - values.mean()) / values.std(), atol=1e-3)
        np.testing.assert_allclose(imagenet[..., 2], (unit[..., 2] - 0.406) / 0.225, atol=1e-5)

    def test_moments_are_exact_and_need_no_copy_of_the_images(self):
        pictures = np.random.default_rng(0).integers(0, 256, (500, 84, 84, 3), dtype=np.uint8)
        tracemalloc.start()
        mean, std = miniimagenet.moments(iter(pictures))
        assert tracemalloc.get_traced_memory()[1] < pictures.nbytes / 10  # std() takes 8 times as much
        tracemalloc.stop()
        np.testing.assert_allclose(mean, pictures.mean(axis=(0, 1, 2)) / 255, rtol=1e-12)
        np.testing.assert_allclose(std, pictures.std(axis=(0, 1, 2)) / 255, rtol=1e-12)

    def test_what_is_missing_is_named_and_nothing_is_kept(self, tmp_path):
        with pytest.raises(DataError, match="metarun data import miniimagenet PATH"):
            miniimagenet.build(MiniImagenetOptions())
        with pytest.raises(DataError, match="no train split: expected"):
            miniimagenet.import_from([tmp_path])
        self.folders(tmp_path)
        (tmp_path / "val" / "n10" / "n10_0.png").unlink()
        with pytest.raises(DataError, match="n10 has 3 images of 4"):
            miniimagenet.import_from([tmp_path])
        (tmp_path / "val" / "n10" / "n10_0.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"n10_0\.png is not a readable image"):
            miniimagenet.import_from([tmp_path])
        assert cache.read("miniimagenet-test") is None

    def test_names_in_an_archive_never_become_paths(self, tmp_path):
        with tarfile.open(tmp_path / "train.tar", "w") as archive:
            for name in ("../../evil/a.png", "/evil/b.png", "train/n/c.png"):
                info = tarfile.TarInfo(name)
                info.size = len(png())
                archive.addfile(info, io.BytesIO(png()))
            link = tarfile.TarInfo("train/n/d.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match="train has 2 classes of 3"):
            miniimagenet.import_from([tmp_path / "train.tar"])
        assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before
        assert not (tmp_path.parent / "evil").exists() and not (tmp_path.parent.parent / "evil").exists()
        (tmp_path / "train.tar").write_bytes(b"\x1f\x8bnonsense")
        with pytest.raises(DataError, match="not a readable tar archive"):
            miniimagenet.import_from([tmp_path])

    @pytest.mark.parametrize("damage", ["cut", "garbled at once", "garbled later"])
    def test_a_damaged_archive_is_named(self, tmp_path, damage):
        data, picture = io.BytesIO(), io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 16, (84, 84, 3), dtype=np.uint8)
        Image.fromarray(noise).save(picture, "BMP")  # compressed by half, so that a wrong byte is a wrong code
        with tarfile.open(fileobj=data, mode="w:gz") as archive:
            info = tarfile.TarInfo("train/n/0.bmp")
            info.size = len(picture.getvalue())
            archive.addfile(info, io.BytesIO(picture.getvalue()))
        whole = data.getvalue()
        place = {"cut": len(whole) // 2, "garbled at once": 300, "garbled later": len(whole) // 2}[damage]
        rest = b"" if damage == "cut" else b"\xff" * 100 + whole[place + 100 :]
        (tmp_path / "train.tar.gz").write_bytes(whole[:place] + rest)
        with pytest.raises(DataError, match=r"train\.tar\.gz is not a readable tar archive (.*): copy it again$"):
            miniimagenet.prepare([tmp_path], "train")

    @pytest.mark.parametrize(
        "told",
        [
            {"class_dict": {"a": "zzz"}},
            {"class_dict": {"a": [[0, 1], [2]]}},
            {"class_dict": {"a": None}},
            {"class_dict": {"a": [10**30]}},
            {"class_dict": {"a": [1]}},
            {"class_dict": {"a": [[0]]}},
            {"labels": [[0], [0, 1]]},
            {"labels": [0, 1]},
        ],
    )
    def test_members_that_make_no_sense(self, tmp_path, told):
        path = tmp_path / "mini-imagenet-cache-train.pkl"
        path.write_bytes(pickle.dumps(told | {"image_data": np.zeros((1, 84, 84, 3), np.uint8)}))
        with pytest.raises(
            DataError, match="has no image numbers under class_dict|has class members beyond its 1 images"
        ):
            miniimagenet.prepare([path], "train")

    def test_a_table_cannot_lead_out_of_its_folder(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "secret.png").write_bytes(png())
        (tmp_path / "train.csv").write_text("filename,label\n../secret.png,n0\n")
        with pytest.raises(DataError, match=r"names 'secret\.png', which is not in"):
            miniimagenet.import_from([tmp_path])


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["alone", "in a dict", "in an array"])
def test_a_hostile_pickle_runs_nothing(tmp_path, where):
    evil = Hostile(tmp_path / "ran")
    told = {"alone": evil, "in a dict": {"image_data": evil}, "in an array": {"a": np.array([evil], dtype=object)}}[
        where
    ]
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps(told))
    with pytest.raises(DataError, match="nothing in it was run"):
        pickles.load_arrays(path)
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes())  # the wrong variant runs it
    assert (tmp_path / "ran").exists()


class Disguised:
    """An array of pointers into nowhere whose dtype, by its pickled flags, has no objects in it."""

    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(4).__reduce__()
        return rebuild, arguments, (1, (4,), DisguisedType(), False, b"A" * 32)


class DisguisedType:
    def __reduce__(self):
        rebuild, arguments, state = np.dtype([("x", "O")]).__reduce__()
        return rebuild, arguments, (*state[:7], 0)  # the last one: the flags


def test_a_pickle_cannot_disguise_pointers_as_numbers(tmp_path):
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "labels": Disguised()}))
    sort = "import sys, numpy\nfrom pathlib import Path\n{}\nnumpy.unique(told['labels'])"
    load = "from metarun.datasets import pickles\ntold = pickles.load_arrays(Path(sys.argv[1]))"
    wrong = "import pickle\ntold = pickle.loads(Path(sys.argv[1]).read_bytes())"
    safe, unsafe = (
        subprocess.run([sys.executable, "-c", sort.format(way), path], capture_output=True, text=True)
        for way in (load, wrong)
    )
    assert safe.returncode == 1 and "DataError" in safe.stderr and "nothing in it was run" in safe.stderr
    assert unsafe.returncode < 0, "numpy's own dtype follows the pointers"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_arrays_come_out_of_every_protocol(tmp_path, protocol):
    told = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.array([1, 258], ">i8"),
        "texts": np.array(["n01", "longer"]),
        "bytes": np.array([b"n01"]),
        "number": np.int64(5),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(told, protocol))
    for name, array in pickles.load_arrays(path).items():
        np.testing.assert_array_equal(array, told[name])
    assert pickles.load_arrays(path)["images"].dtype == np.uint8


@pytest.mark.parametrize("array", [np.zeros(2, [("x", "f4")]), np.array([{}], object), np.zeros(2, "M8[s]")])
def test_arrays_of_anything_but_numbers_and_texts_are_refused(tmp_path, array):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(DataError, match="it has an array of type"):
        pickles.load_arrays(path)


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps([1])[:-1], pickle.dumps([1])])
def test_pickles_that_are_no_dict_of_arrays(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.pkl"):
        pickles.load_arrays(path)


class TestImageFolder:
    def fill(self, root, classes=10, number=6, prefix=""):
        for each in range(classes):
            folder = root / f"{prefix}c{each:02}"
            folder.mkdir(parents=True)
            for image in range(number):
                (folder / f"{image}.png").write_bytes(png(10 * each + image, (40, 30)))

    def build(self, root, **options):
        return imagefolder.build(ImageFolderOptions(path=root, image_size=16, **options))

    def test_the_division_depends_on_names_and_seed_alone(self, tmp_path):
        self.fill(tmp_path / "a")
        self.fill(tmp_path / "b", number=3)
        names = [
            {split: pool.names for split, pool in self.build(path, split_seed=seed).pools.items()}
            for path, seed in [(tmp_path / "a", 0), (tmp_path / "b", 0), (tmp_path / "a", 1)]
        ]
        assert names[0] == names[1] != names[2]
        assert {split: len(each) for split, each in names[0].items()} == {"train": 6, "val": 2, "test": 2}

    @pytest.mark.parametrize("divided", [False, True])
    def test_images_need_not_fit_in_memory(self, tmp_path, monkeypatch, divided):
        for split in SPLITS if divided else ("",):
            self.fill(tmp_path / split, classes=12)
        monkeypatch.setattr(imagefolder, "AT_ONCE", 4)
        tracemalloc.start()
        source = imagefolder.build(ImageFolderOptions(path=tmp_path, image_size=256, in_memory=False))
        everything = sum(pool.images.nbytes for pool in source.pools.values())
        assert tracemalloc.get_traced_memory()[1] < everything / 4, "of numpy's memory; its memory maps do not count"
        tracemalloc.stop()
        assert all(isinstance(pool.images, np.memmap) for pool in source.pools.values())
        for pool in source.pools.values():  # every class has its own images: `fill` wrote its number into the red value
            reds = pool.images[np.cumsum(pool.counts) - 1, 0, 0, 0]
            assert reds.tolist() == [10 * int(name[-2:]) + 5 for name in pool.names]

    def test_folders_by_split(self, tmp_path):
        for split, classes in (("train", 4), ("val", 2), ("test", 3)):
            self.fill(tmp_path / split, classes, prefix=f"{split}-")
        source = self.build(tmp_path, channels=1)
        assert [len(source.pools[split].names) for split in SPLITS] == [4, 2, 3]
        assert source.pools["test"].names[0] == "test/test-c00" and source.input_shape == (16, 16, 1)

    def test_a_changed_folder_is_read_anew(self, tmp_path):
        self.fill(tmp_path)
        before = self.build(tmp_path).pools["train"].images.copy()
        for path in tmp_path.glob("c*/0.png"):
            path.write_bytes(png(255, (41, 30)))
        assert (self.build(tmp_path).pools["train"].images != before).any()

    def test_formats_modes_and_turned_photographs(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        picture = Image.new("RGB", (20, 10), (255, 0, 0))
        picture.paste((0, 0, 255), (0, 0, 10, 10))
        data = io.BytesIO()
        picture.save(data, "JPEG", exif=exif, quality=100)
        upright = images.decode(data.getvalue(), "x", (20, 10), 3)
        assert upright[2, 5, 2] > 200 and upright[17, 5, 0] > 200  # blue above red, not beside it
        for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16"):
            data = io.BytesIO()
            Image.new(mode, (9, 9)).save(data, "TIFF" if mode == "CMYK" else "PNG")
            if mode == "CMYK":
                with pytest.raises(DataError, match="not a readable image"):
                    images.decode(data.getvalue(), "x", (9, 9), 3)
            else:
                assert images.decode(data.getvalue(), "x", (9, 9), 3).shape == (9, 9, 3)

    def test_sixteen_bits_are_the_picture_of_eight(self):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        deep, flat = io.BytesIO(), io.BytesIO()
        Image.fromarray(ramp.astype(np.uint16) * 257).save(deep, "PNG")
        Image.fromarray(ramp).save(flat, "PNG")
        assert Image.open(deep).mode.startswith("I")
        for channels in (1, 3):
            pictures = [images.decode(each.getvalue(), "x", (16, 16), channels) for each in (deep, flat)]
            np.testing.assert_array_equal(*pictures)

    def test_hidden_folders_and_files_are_passed_over(self, tmp_path):
        for split in ("train", "test"):
            self.fill(tmp_path / split, 3)
            (tmp_path / split / "c00" / "._0.png").write_bytes(b"of macOS")
        self.fill(tmp_path / ".git")
        pools = self.build(tmp_path).pools
        assert {split: sum(pool.counts) for split, pool in pools.items()} == {"train": 18, "test": 18}
        (tmp_path / "notes").mkdir()
        with pytest.raises(DataError, match="other folders beside train, val and test: move cache, notes elsewhere"):
            self.build(tmp_path)

    @pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names")
    def test_a_name_that_is_no_text_is_a_class(self, tmp_path):
        self.fill(tmp_path)
        os.rename(tmp_path / "c03", os.fsencode(tmp_path) + b"/caf\xe9")
        names = [name for pool in self.build(tmp_path).pools.values() for name in pool.names]
        assert os.fsdecode(b"caf\xe9") in names and len(names) == 10

    def test_a_division_that_is_there_cannot_be_chosen(self, tmp_path):
        for split in SPLITS:
            self.fill(tmp_path / split, 2)
        for option in ({"split_seed": 3}, {"split": (0.5, 0.2, 0.3)}):
            with pytest.raises(DataError, match=rf"dataset\.{next(iter(option))} has no effect: .* is divided already"):
                self.build(tmp_path, **option)
        self.build(tmp_path, split_seed=0, split=(0.64, 0.16, 0.2))  # as a resolved spec has them

    def test_clear_errors_before_training(self, tmp_path):
        with pytest.raises(DataError, match="is not a folder"):
            self.build(tmp_path / "nothing")
        with pytest.raises(DataError, match="has no class folders with images"):
            self.build(tmp_path)
        self.fill(tmp_path)
        source = self.build(tmp_path)
        with pytest.raises(DataError, match="val has 2 classes, fewer than way 5: lower way, or add classes"):
            source.check("val", Shape(5, 1, 1))
        with pytest.raises(DataError, match=r"has 6 images, fewer than shot \+ query = 5 \+ 2"):
            source.check("test", Shape(2, 5, 2))
        with pytest.raises(
            DataError, match="has no val classes: write `validation: null`, or give more classes to val"
        ):
            self.build(tmp_path, split=(0.8, 0.0, 0.2)).check("val", Shape(2, 1, 1))
        (tmp_path / "c03" / "2.png").write_bytes(png()[:-30])
        with pytest.raises(DataError, match=r"c03/2\.png is not a readable image"):
            self.build(tmp_path)

    def test_a_picture_bomb_is_refused(self, monkeypatch):
        monkeypatch.setattr(images, "MAXIMUM_PIXELS", 50)
        with pytest.raises(DataError, match="84x84 pixels: shrink it first"):
            images.decode(png(), "x", (8, 8), 3)


class TestOmniglot:
    @pytest.fixture
    def build(self, real_data, cache_folder):
        if not cache.read("omniglot"):
            omniglot.import_from([real_data / "omniglot"])
        return lambda **options: omniglot.build(OmniglotOptions(**options))

    @pytest.mark.parametrize(
        ("split", "sizes"),
        [
            ("vinyals", {"train": 1028, "val": 172, "test": 423}),
            ("background-evaluation", {"test": 659}),
            ("random-1100-100-423", {"train": 1100, "val": 100, "test": 423}),
            ("random-1200-423", {"train": 1200, "test": 423}),
        ],
    )
    def test_splits(self, build, split, sizes):
        pools = build(split=split).pools
        assert {name: len(pools[name].counts) for name in sizes} == sizes
        names = [name for pool in pools.values() for name in pool.names]
        assert len(names) == len(set(names)) == 1623
        if split == "background-evaluation":  # whole alphabets, so that validation is as foreign as the test
            alphabets = [{name.split("/")[0] for name in pool.names} for pool in pools.values()]
            assert not alphabets[0] & alphabets[1]

    @pytest.mark.parametrize(
        ("split", "digest"),
        [
            ("vinyals", "8f7a8aa8"),
            ("background-evaluation", "8b2be21c"),
            ("random-1100-100-423", "7baf4b49"),
            ("random-1200-423", "5086cd19"),
        ],
    )
    def test_splits_stay_as_they_are(self, split, digest):
        names, _ = omniglot.characters()
        told = {each: tuple(names[n] for n in numbers) for each, numbers in omniglot.divide(split).items() if numbers}
        assert hashlib.sha256(repr(told).encode()).hexdigest()[:8] == digest, "results are no longer comparable"

    def test_rotations_are_classes_where_the_spec_says_so(self, build):
        counts = {
            mode: [build(split="vinyals", rotations=mode).classes(split) for split in SPLITS]
            for mode in ("none", "classes", "classes-train", "per-task")
        }
        assert counts == {
            "none": [1028, 172, 423],
            "classes": [4112, 688, 1692],
            "classes-train": [4112, 172, 423],
            "per-task": [1028, 172, 423],
        }

    def test_ink(self, build):
        one, zero = (build(ink=ink).sample("test", 0, 1, Shape(2, 1, 1), 0).support_x.numpy() for ink in (1, 0))
        np.testing.assert_allclose(one, 1 - zero, atol=1e-6)
        assert one.mean() < 0.3 and set(np.unique(one)) == {0.0, 1.0}  # strokes, by nearest neighbour

    def test_no_image_is_turned_or_mixed_up(self, build, real_data):
        pool = build().pools["train"]
        with zipfile.ZipFile(real_data / "omniglot" / "images_background.zip") as archive:
            name = next(each for each in archive.namelist() if each.endswith("Balinese/character05/0112_07.png"))
            with Image.open(io.BytesIO(archive.read(name))) as image:
                expected = ~np.asarray(image.resize((28, 28)))
        row = pool.names.index("Balinese/character05") * 20 + 6
        np.testing.assert_array_equal(pool.images[row, ..., 0] > 0, expected)

    def test_half_of_it_is_not_omniglot(self, real_data):
        with pytest.raises(DataError, match="964 characters .* give both images_background and images_evaluation"):
            omniglot.prepare([real_data / "omniglot" / "images_background.zip"])

    def test_archives_that_are_none(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            omniglot.prepare([tmp_path / "nothing.zip"])
        (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nonsense")
        with pytest.raises(DataError, match="not a readable zip archive"):
            omniglot.prepare([tmp_path / "x.zip"])
        with zipfile.ZipFile(tmp_path / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("A/character01/0001_01.png", bytes(1000))
        data = (tmp_path / "w.zip").read_bytes()
        place = data.index(b".png") + 4
        (tmp_path / "w.zip").write_bytes(data[:place] + b"\xff" * 8 + data[place + 8 :])
        for broken in (tmp_path / "w.zip", Path("a\0b")):
            with pytest.raises(DataError, match="not a readable zip archive"):
                omniglot.prepare([broken])
        with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
            archive.writestr("../../Evil/character01/0001_01.png", png(size=(10, 10)))
        with pytest.raises(DataError, match="10x10, not 105x105"):
            omniglot.prepare([tmp_path / "y.zip"])
        assert sorted(path.name for path in tmp_path.rglob("*.png")) == []

    def test_pixels_and_numbers_decide_not_the_names_of_folders(self, tmp_path, monkeypatch):
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            blank = png(0, (105, 105), "1")
            for number in range(1, 1624):
                for drawer in range(1, 21):
                    archive.writestr(f"Braille_2/character01/{number:04}_{drawer:02}.png", blank)
        with pytest.raises(DataError, match="the images differ from Omniglot's"):
            omniglot.prepare([tmp_path / "z.zip"])
        ink = np.packbits(np.ones((32460, 105, 105), bool))
        monkeypatch.setattr(omniglot, "PIXELS", hashlib.sha256(ink.tobytes()).hexdigest())
        names = omniglot.prepare([tmp_path / "z.zip"]).names
        assert len(set(names)) == 1623
        assert [names[number - 1] for number in (1, 192, 709, 1204)] == [
            "Arcadian/character01", "Braille/character01", "Alphabet_of_the_Magi/character01", "Gurmukhi/character45"
        ]  # fmt: skip


class TestFetch:
    @pytest.fixture
    def address(self, tmp_path):
        """A server of this machine with one file."""
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / "a.zip").write_bytes(b"content")

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

        handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

    def test_what_comes_is_checked(self, address, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        good = hashlib.md5(b"content").hexdigest()
        (path,) = download(address, {"a.zip": good})
        assert path.read_bytes() == b"content"
        path.unlink()
        with pytest.raises(DataError, match="not the official archive"):
            download(address, {"a.zip": "0" * 32})
        assert not path.exists()
        with pytest.raises(DataError, match="cannot download .*metarun data import omniglot"):
            download(address, {"b.zip": good})

    def test_no_network_is_one_line(self, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(DataError, match="on a machine without internet give your own copy"):
            download("http://127.0.0.1:9/", {"a.zip": "0" * 32})
