"""miniImageNet that people bring: every known form is read, whatever is wrong is one clear line."""

import csv
import io
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import png
from PIL import Image

from metarun.cli.data import command as data_verb
from metarun.datasets import miniimagenet
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache
from metarun.datasets.images.intake import moments
from metarun.datasets.options import MiniImagenetOptions
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


def doubled(levels):
    """Return lists whose pickle is short, but which as an array are more numbers than fit in memory."""
    rows = [0]
    for _ in range(levels):
        rows = [rows, rows]
    return rows


class TestMiniImagenet:
    """Import a copy with 3 / 2 / 2 classes of 4 images, in all the forms that are about."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(miniimagenet, "CLASSES", {"train": 3, "val": 2, "test": 2})
        monkeypatch.setattr(miniimagenet, "IMAGES", 4)

    def entries(self):
        """Yield (split, class, file name, bytes) of each image; the first red value tells class and image."""
        for number, split in enumerate(SPLITS):
            for each in range({"train": 3, "val": 2, "test": 2}[split]):
                for image in range(4):
                    yield (
                        split,
                        f"n{number}{each}",
                        f"n{number}{each}_{image}.png",
                        png(50 * number + 10 * each + image),
                    )

    WNIDS = {  # the first classes of each split
        "n00": "n01532829", "n01": "n01558993", "n02": "n01704323", "n10": "n01855672", "n11": "n02091244",
        "n20": "n01930112", "n21": "n01981276"
    }  # fmt: skip

    def named(self, root, **other):
        """Write folders whose classes have their WordNet numbers, but for those in `other`."""
        self.folders(root)
        for own, name in (self.WNIDS | other).items():
            (folder,) = root.glob(f"*/{own}")
            folder.rename(folder.with_name(name))

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

    @pytest.mark.parametrize(("form", "parts"), [("folders", "{}"), ("csvs", "{}.csv"), ("tars", "{}.tar.gz")])
    def test_the_parts_one_by_one(self, tmp_path, form, parts):
        getattr(self, form)(tmp_path)
        miniimagenet.import_from([tmp_path / parts.format(split) for split in reversed(SPLITS)])
        assert miniimagenet.build(MiniImagenetOptions()).pools["val"].names == ("n10", "n11")

    def test_an_import_that_fails_changes_nothing(self, tmp_path):
        """Reject a mixture of the second copy's train split with the other splits of the first."""
        self.folders(tmp_path)
        miniimagenet.import_from([tmp_path])
        before = miniimagenet.build(MiniImagenetOptions()).content_digest
        other = next((tmp_path / "train").glob("*/*"))
        other.write_bytes(png())
        missing = tmp_path / "test" / "n20" / "n20_0.png"
        missing.rename(tmp_path / "away.png")
        with pytest.raises(DataError, match="n20 has 3 images of 4"):
            miniimagenet.import_from([tmp_path])
        assert miniimagenet.build(MiniImagenetOptions()).content_digest == before
        (tmp_path / "away.png").rename(missing)
        miniimagenet.import_from([tmp_path])
        assert miniimagenet.build(MiniImagenetOptions()).content_digest != before
        assert not list(cache.folder().glob("*new*"))

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
        mean, std = moments(iter(pictures))
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
            miniimagenet.import_from([tmp_path])

    @pytest.mark.parametrize(
        "told",
        [
            {"class_dict": {"a": "zzz"}},
            {"class_dict": {"a": [[0, 1], [2]]}},
            {"class_dict": {"a": None}},
            {"class_dict": {"a": [10**30]}},
            {"class_dict": {"a": [1]}},
            {"class_dict": {"a": [[0]]}},
            {"class_dict": {"a": doubled(40)}},
            {"labels": [[0], [0, 1]]},
            {"labels": doubled(40)},
            {"class_dict": {"a": [0, 0]}},
            {"labels": [0, 1]},
        ],
    )
    def test_members_that_make_no_sense(self, tmp_path, told):
        path = tmp_path / "mini-imagenet-cache-train.pkl"
        path.write_bytes(pickle.dumps(told | {"image_data": np.zeros((1, 84, 84, 3), np.uint8)}))
        with pytest.raises(
            DataError,
            match="has no image numbers under class_dict|has class members beyond its 1 images|has an image twice",
        ):
            miniimagenet.import_from([path])

    def test_a_table_cannot_lead_out_of_its_folder(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "secret.png").write_bytes(png())
        (tmp_path / "train.csv").write_text("filename,label\n../secret.png,n0\n")
        with pytest.raises(DataError, match=r"names 'secret\.png', which is not in"):
            miniimagenet.import_from([tmp_path])

    def test_fault_03_names_of_classes_are_compared(self, tmp_path, capsys):
        """Import a copy whose validation and test are classes of training. Rejected: "ready", since the numbers of
        classes are right."""
        self.named(tmp_path / "good")
        miniimagenet.import_from([tmp_path / "good"])
        assert "warning" not in capsys.readouterr().err
        before = miniimagenet.build(MiniImagenetOptions()).content_digest
        self.named(tmp_path / "bad", n10="n01749939", n21="n02091244")
        told = r"val has 1 classes of train: n01749939; test has 1 classes of val: n02091244"
        with pytest.raises(DataError, match=told):
            miniimagenet.import_from([tmp_path / "bad"])
        self.named(tmp_path / "foreign", n00="n01440764")
        with pytest.raises(DataError, match="train has 1 classes that are not of miniImageNet: n01440764"):
            miniimagenet.import_from([tmp_path / "foreign"])
        assert miniimagenet.build(MiniImagenetOptions()).content_digest == before

    def test_fault_03_names_that_cannot_be_compared_are_told(self, tmp_path, capsys):
        self.folders(tmp_path)
        miniimagenet.import_from([tmp_path])
        told = "7 of 7 class names (n00, n01, n02 and 4 more) are no WordNet numbers"
        assert told in capsys.readouterr().err
        assert told in CliRunner().invoke(data_verb, ["list"]).output
        assert told in CliRunner().invoke(data_verb, ["verify", "miniimagenet"]).output
        (tmp_path / "test" / "n20").rename(tmp_path / "test" / "n11")
        with pytest.raises(DataError, match="1 classes are in two splits: n11"):
            miniimagenet.import_from([tmp_path])

    @pytest.mark.parametrize("named", [True, False])
    def test_fault_03_an_image_in_two_splits_is_refused(self, tmp_path, named):
        """Compare pixels, not names of files. Rejected: an import of whatever has the right numbers."""
        (self.named if named else self.folders)(tmp_path)
        one, other = next((tmp_path / "train").glob("*/*")), next((tmp_path / "test").glob("*/*"))
        with Image.open(one) as image:
            image.save(other.with_suffix(".bmp"))
        other.unlink()
        with pytest.raises(DataError, match="1 image is in several classes, 1 of them in several splits"):
            miniimagenet.import_from([tmp_path])

    def test_fault_03_the_equal_images_of_the_original_are_none(self, tmp_path):
        """Take the original, whose classes n03888605 and n03535780 have equal images; other equal ones are refused."""
        self.named(tmp_path, n00="n03888605", n10="n03535780")

        def make_equal(name, other):
            for path, copy in zip(*(sorted((tmp_path / each).iterdir()) for each in (name, other)), strict=True):
                copy.write_bytes(path.read_bytes())

        make_equal("train/n03888605", "val/n03535780")
        miniimagenet.import_from([tmp_path])
        pools = miniimagenet.build(MiniImagenetOptions()).pools
        assert "n03888605" in pools["train"].names and "n03535780" in pools["val"].names
        make_equal("train/n03888605", "test/n01930112")
        with pytest.raises(DataError, match="several splits"):
            miniimagenet.import_from([tmp_path])

    def test_fault_03_copies_within_a_split_are_refused(self, tmp_path):
        self.named(tmp_path)
        for name in ("n01532829", "n01558993", "n01704323"):
            first, *rest = sorted((tmp_path / "train" / name).iterdir())
            for each in rest:
                each.write_bytes(first.read_bytes())
        with pytest.raises(DataError, match="9 images are copies of another one in their split"):
            miniimagenet.import_from([tmp_path])

    def test_fault_03_an_older_import_is_checked_when_it_is_read(self, tmp_path, monkeypatch):
        """Read what an older version imported: anything of the right counts. Rejected: its copy is read, and verify
        says good."""
        self.named(tmp_path)
        other = next((tmp_path / "val").glob("*/*"))
        other.write_bytes(next((tmp_path / "train").glob("*/*")).read_bytes())
        with monkeypatch.context() as patch:
            patch.setattr(miniimagenet, "problems", lambda *_: ())
            miniimagenet.import_from([tmp_path])
        cache.note("miniimagenet-train", checked="")
        with pytest.raises(DataError, match="1 of them in several splits.*import it again"):
            miniimagenet.build(MiniImagenetOptions())
        done = CliRunner().invoke(data_verb, ["verify"])
        assert isinstance(done.exception, DataError) and "in several splits" in str(done.exception)
        assert "miniimagenet-val      wrong" in done.output and "good" not in done.output
        other.write_bytes(png(255))
        miniimagenet.import_from([tmp_path])
        cache.note("miniimagenet-train", checked="")
        miniimagenet.build(MiniImagenetOptions())
        assert len(cache.read("miniimagenet-train").facts["checked"]) == 64, "not looked at again"

    def test_fault_24_all_damaged_images_are_told(self, tmp_path):
        self.folders(tmp_path)
        names = [
            f"{split}/{name}/{name}_{n}.png"
            for split, name, n in (("train", "n00", 0), ("train", "n02", 1), ("val", "n11", 3))
        ]
        for name in names:
            (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(DataError) as caught:
            miniimagenet.import_from([tmp_path])
        assert all(name in str(caught.value) for name in names)


def test_fault_03_the_known_classes_are_64_16_and_20():
    classes = miniimagenet.classes()
    assert [list(classes.values()).count(split) for split in SPLITS] == [64, 16, 20]
    assert classes["n01532829"] == "train" and classes["n09256479"] == "val" and classes["n07613480"] == "test"


@pytest.mark.slow
def test_fault_03_the_real_images_are_imported(real_data):
    miniimagenet.import_from([real_data / "miniimagenet"])
    assert miniimagenet.build(MiniImagenetOptions()).pools["test"].images.shape == (12000, 84, 84, 3)
