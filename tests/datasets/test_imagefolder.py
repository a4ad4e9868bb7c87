"""Folders of images that people bring: whatever is wrong is one clear line."""

import io
import os
import sys
import tracemalloc

import numpy as np
import pytest
from pictures import png
from PIL import Image

from metarun.datasets import imagefolder
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache, decode
from metarun.datasets.options import ImageFolderOptions
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


class TestImageFolder:
    def fill(self, root, classes=10, number=6, prefix="", first=0):
        for each in range(classes):
            folder = root / f"{prefix}c{each:02}"
            folder.mkdir(parents=True)
            for image in range(number):
                (folder / f"{image}.png").write_bytes(png(first + 10 * each + image, (40, 30)))

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

    def test_classes_in_two_splits_are_told(self, tmp_path, capsys):
        """Check that a test of such classes is no few-shot accuracy; the usual folders of image classification are
        such."""
        self.fill(tmp_path / "train", 6)
        self.fill(tmp_path / "test", 5)
        self.build(tmp_path)
        told = f"warning: {tmp_path}: train/ and test/ both have c00, c01, c02 and 2 more; the splits"
        assert capsys.readouterr().err.startswith(told)
        self.fill(tmp_path / "other/train", 3)
        self.fill(tmp_path / "other/test", 3, prefix="t", first=100)
        self.build(tmp_path / "other")
        assert "warning" not in capsys.readouterr().err

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
        upright = decode.decode(data.getvalue(), "x", (20, 10), 3)
        assert upright[2, 5, 2] > 200 and upright[17, 5, 0] > 200  # blue above red, not beside it
        for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16"):
            data = io.BytesIO()
            Image.new(mode, (9, 9)).save(data, "TIFF" if mode == "CMYK" else "PNG")
            assert decode.decode(data.getvalue(), "x", (9, 9), 3).shape == (9, 9, 3)

    @pytest.mark.parametrize(("mode", "ink"), [("RGBA", (0, 0, 0, 255)), ("LA", (0, 255))])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_what_is_transparent_is_white(self, mode, ink, channels):
        """Reject what lies under the transparency, here black too. Black ink on nothing."""
        picture, data = Image.new(mode, (9, 9)), io.BytesIO()
        picture.paste(ink, (0, 0, 9, 4))
        picture.save(data, "PNG")
        rows = decode.decode(data.getvalue(), "x", (9, 9), channels).mean(axis=(1, 2))
        assert rows.tolist() == [0] * 4 + [255] * 5

    def test_damaged_exif_data_are_told_with_the_file(self, monkeypatch):
        """Check that damaged data raise TypeError, struct.error or AttributeError, as the byte that is wrong."""
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", lambda image: abs(b""))
        with pytest.raises(DataError, match=r"a/b\.jpg is not a readable image \(bad operand"):
            decode.decode(png(255, (9, 9)), "a/b.jpg", (9, 9), 3)

    def test_sixteen_bits_are_the_picture_of_eight(self):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        deep, flat = io.BytesIO(), io.BytesIO()
        Image.fromarray(ramp.astype(np.uint16) * 257).save(deep, "PNG")
        Image.fromarray(ramp).save(flat, "PNG")
        assert Image.open(deep).mode.startswith("I")
        for channels in (1, 3):
            pictures = [decode.decode(each.getvalue(), "x", (16, 16), channels) for each in (deep, flat)]
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

    def test_no_class_is_in_two_splits(self):
        """Reject so many classes in each. Two halves of 7 are both rounded up."""
        for shares in ((0.0, 0.5, 0.5), (0.64, 0.16, 0.2), (0.0, 0.3, 0.7)):
            parts = imagefolder.divide([(str(number), []) for number in range(7)], shares, 0)
            assert sorted(name for part in parts.values() for name, _ in part) == list("0123456")

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
        with pytest.raises(DataError, match=r"2 test classes have fewer images than shot \+ query = 5 \+ 2"):
            source.check("test", Shape(2, 5, 2))
        with pytest.raises(DataError, match="has no val classes: set `validation: null`, or add classes to val"):
            self.build(tmp_path, split=(0.8, 0.0, 0.2)).check("val", Shape(2, 1, 1))
        (tmp_path / "c03" / "2.png").write_bytes(png()[:-30])
        with pytest.raises(DataError, match=r"c03/2\.png is not a readable image"):
            self.build(tmp_path)

    def test_a_picture_bomb_is_refused(self, monkeypatch):
        monkeypatch.setattr(decode, "MAXIMUM_PIXELS", 50)
        with pytest.raises(DataError, match="84x84 pixels: shrink it first"):
            decode.decode(png(), "x", (8, 8), 3)


class TestWhatIsLeftOut:
    def build(self, root, **options):
        return imagefolder.build(ImageFolderOptions(path=root, image_size=8, **options))

    @pytest.fixture
    def root(self, tmp_path):
        """Write six classes of four images that differ; return their folder."""
        generator = np.random.default_rng(0)
        for each in range(6):
            folder = tmp_path / "imgs" / f"c{each}"
            folder.mkdir(parents=True)
            for image in range(4):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{image}.png")
        return tmp_path / "imgs"

    def pixels(self, source):
        """Return the pixels of each class by its name."""
        return {
            name: each
            for pool in source.pools.values()
            for name, each in zip(pool.names, np.split(pool.images, np.cumsum(pool.counts)[:-1]), strict=True)
        }

    @pytest.mark.parametrize("ending", ["tif", "TIFF", "gif", "jfif", "jpe", "webp", "bmp", "dib", "ppm", "pgm", "jp2"])
    def test_fault_05_every_format_that_is_safe_is_read(self, root, capsys, ending):
        """Read a class of eight .tif, which was gone. Rejected: the class without these images."""
        kind = "PPM" if ending == "pgm" else decode.FORMATS[f".{ending.lower()}"]
        before = self.pixels(self.build(root))["c0"]
        for path in (root / "c0").glob("*.png"):
            with Image.open(path) as image:
                image.save(path.with_suffix(f".{ending}"), kind)
            path.unlink()
        after = self.pixels(self.build(root))["c0"]
        assert after.shape == before.shape and "left out" not in capsys.readouterr().err
        if kind in ("TIFF", "BMP", "PPM"):  # the others lose something
            np.testing.assert_array_equal(after, before)

    def test_fault_05_one_warning_lists_all_that_is_left_out_and_why(self, root, capsys):
        for path in (root / "c0").glob("*.png"):
            path.rename(path.with_suffix(".xyz"))
        (root / "c1" / "notes.txt").write_text("")
        (root / "c1" / "Thumbs.db").write_text("")
        (root / "c2" / "deeper").mkdir()
        (root / "c2" / "deeper" / "0.png").write_bytes(png())
        (root / "c3" / "gone.png").symlink_to(root / "nowhere")
        (root / "c4" / "circle.png").symlink_to(root / "c4" / "circle.png")
        (root / "loose.png").write_bytes(png())
        (root / "README.md").write_text("")
        (root / "empty").mkdir()
        frames = [Image.new("L", (8, 8), value) for value in (0, 9)]
        frames[0].save(root / "c5" / "moves.gif", save_all=True, append_images=frames[1:])
        self.build(root)
        self.build(root)  # of another seed
        assert capsys.readouterr().err == (
            f"warning: {root}: left out: 5 files of kinds that are not read: 4 .xyz, 1 .txt (such as c0/0.xyz); "
            "1 folder deeper than <class>/<image>: c2/deeper; 1 image beside the class folders: loose.png; "
            "2 names of no readable file: c3/gone.png, c4/circle.png; 2 whole classes without an image that is read: "
            "c0, empty; all but the first frame of 1 file\n"
        )

    def test_fault_05_a_folder_with_nothing_to_read_says_what_it_has(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "0.svg").write_text("")
        with pytest.raises(DataError, match="no class folders with images .*left out: 1 file .* 1 .svg .* class .*: a"):
            self.build(tmp_path)

    def test_fault_05_a_folder_that_cannot_be_read_is_named(self, root, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("metarun.datasets.images.folders.os.scandir", refuse)
        with pytest.raises(DataError, match="imgs cannot be read: Permission denied"):
            self.build(root)

    def test_fault_04_the_same_image_in_two_classes_or_splits_is_told(self, root, capsys):
        self.build(root)
        assert capsys.readouterr().err == ""
        (root / "copy").mkdir()
        for path in (root / "c0").glob("*.png"):
            with Image.open(path) as image:
                image.save(root / "copy" / f"{path.stem}.bmp")  # other bytes, the same pixels
        split_of = {name: split for split, pool in self.build(root).pools.items() for name in pool.names}
        apart = ", 4 of them in several splits," if split_of["c0"] != split_of["copy"] else ""
        expected = (
            f"warning: {root}: 4 images are in several classes{apart} by equal pixels: "
            f"{' = '.join(sorted(f'{name} ({split_of[name]})' for name in ('c0', 'copy')))}: 4\n"
        )
        told = capsys.readouterr().err
        assert sorted(told.split()) == sorted(expected.split())
        imagefolder._told.clear()
        self.build(root)  # a second start, of the cache
        assert capsys.readouterr().err == told

    def test_fault_04_splits_and_copies_within_a_class_are_told(self, tmp_path, capsys):
        for split, first in (("train", 0), ("test", 100)):
            for name in ("a", "b"):
                folder = tmp_path / split / (split + name)
                folder.mkdir(parents=True)
                for number in range(3):
                    (folder / f"{number}.png").write_bytes(png(first + 10 * (name == "b") + number))
        (tmp_path / "test" / "testb" / "x.png").write_bytes(png(1))
        (tmp_path / "train" / "trainb" / "y.png").write_bytes(png(10))
        self.build(tmp_path)
        assert capsys.readouterr().err == (
            f"warning: {tmp_path}: 1 image is in several classes, 1 of them in several splits, by equal pixels: "
            "train/traina = test/testb: 1\n"
            f"warning: {tmp_path}: 1 image is more than once in one class: train/trainb: 1; support and queries may "
            "share them\n"
        )

    def test_fault_24_all_damaged_images_are_told_and_what_was_decoded_is_kept(self, root, monkeypatch):
        good = {}
        for name in ("c1/0.png", "c3/2.png", "c3/3.png"):
            good[name] = (root / name).read_bytes()
            (root / name).write_bytes(good[name][:-60])
        with pytest.raises(DataError, match="3 of 24 images cannot be read") as caught:
            self.build(root)
        assert all(f"{root / name} is not a readable image" in str(caught.value) for name in good)
        read = []
        original = decode.read
        monkeypatch.setattr(decode, "read", lambda path, *rest: read.append(path) or original(path, *rest))
        (root / "c1/0.png").write_bytes(good["c1/0.png"])
        with pytest.raises(DataError, match="2 of 24 images cannot be read"):
            self.build(root)
        assert len(read) == 3, "the others were decoded before"
        for name, data in good.items():
            (root / name).write_bytes(data)
        mended = self.pixels(self.build(root))
        assert len(read) == 6
        assert not list(cache.folder().glob("*unfinished*"))
        for path in cache.folder().glob("imagefolder-*"):
            path.unlink()
        for name, pixels in self.pixels(self.build(root)).items():
            np.testing.assert_array_equal(mended[name], pixels)
        assert len(read) == 6 + 24

    def test_fault_24_what_was_decoded_before_a_stop_is_kept(self, root, monkeypatch):
        monkeypatch.setattr(imagefolder, "AT_ONCE", 8)
        read, original = [], decode.read

        def stopped(path, *rest):
            read.append(path)
            if len(read) == 20:
                raise KeyboardInterrupt
            return original(path, *rest)

        monkeypatch.setattr(decode, "read", stopped)
        with pytest.raises(KeyboardInterrupt):
            self.build(root)
        self.build(root)
        assert len(read) - 20 <= 24 - 8, "of those before the twentieth at most twelve were under way"

    def test_fault_24_all_classes_with_too_few_images_are_told(self, root):
        split_of = {name: split for split, pool in self.build(root).pools.items() for name in pool.names}
        few = [name for name, split in split_of.items() if split == "train"][:2]
        for name in few:
            (root / name / "3.png").unlink()
        with pytest.raises(DataError, match=rf"2 train classes have fewer .*: {few[0]} 3, {few[1]} 3"):
            self.build(root).check("train", Shape(2, 2, 2))

    def test_a_changed_image_alone_is_decoded_again(self, root, monkeypatch):
        """Reject the old pixels of the changed image, and the whole folder again."""
        before = self.pixels(self.build(root))
        read, original = [], decode.read
        monkeypatch.setattr(decode, "read", lambda path, *rest: read.append(path) or original(path, *rest))
        Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "c2" / "1.png")
        after = self.pixels(self.build(root))
        assert read == [root / "c2" / "1.png"] and after["c2"][1, 0, 0].tolist() == [1, 2, 3]
        before["c2"] = after["c2"] = None
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
