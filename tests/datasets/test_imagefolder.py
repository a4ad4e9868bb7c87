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
from metarun.datasets.images import decode
from metarun.datasets.options import ImageFolderOptions
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


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

    def test_classes_in_two_splits_are_told(self, tmp_path, capsys):
        """A test of such classes is no few-shot accuracy; the usual folders of image classification are such."""
        self.fill(tmp_path / "train", 6)
        self.fill(tmp_path / "test", 5)
        self.build(tmp_path)
        told = f"warning: {tmp_path}: train/ and test/ both have c00, c01, c02 and 2 more; the splits"
        assert capsys.readouterr().err.startswith(told)
        self.fill(tmp_path / "other/train", 3)
        self.fill(tmp_path / "other/test", 3, prefix="t")
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
            if mode == "CMYK":
                with pytest.raises(DataError, match="not a readable image"):
                    decode.decode(data.getvalue(), "x", (9, 9), 3)
            else:
                assert decode.decode(data.getvalue(), "x", (9, 9), 3).shape == (9, 9, 3)

    @pytest.mark.parametrize(("mode", "ink"), [("RGBA", (0, 0, 0, 255)), ("LA", (0, 255))])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_what_is_transparent_is_white(self, mode, ink, channels):
        """Black ink on nothing. Rejected: what lies under the transparency, here black too."""
        picture, data = Image.new(mode, (9, 9)), io.BytesIO()
        picture.paste(ink, (0, 0, 9, 4))
        picture.save(data, "PNG")
        rows = decode.decode(data.getvalue(), "x", (9, 9), channels).mean(axis=(1, 2))
        assert rows.tolist() == [0] * 4 + [255] * 5

    def test_damaged_exif_data_are_told_with_the_file(self, monkeypatch):
        """Damaged data raise TypeError, struct.error or AttributeError, as the byte that is wrong."""
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
        """Two halves of 7 are both rounded up. Rejected: so many in each."""
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
        with pytest.raises(DataError, match=r"has 6 images, fewer than shot \+ query = 5 \+ 2"):
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
