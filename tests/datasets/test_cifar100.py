"""CIFAR-FS and FC100: every known form gives the same images, whatever is wrong is one clear line."""

import hashlib
import pickle

import copies
import numpy as np
import pytest
from click.testing import CliRunner
from imported import imported, of_class, refused

from metarun.cli.data import command as data_verb
from metarun.datasets import cifar100
from metarun.datasets.errors import DataError
from metarun.datasets.images import published

SPLITS = ("train", "val", "test")

pytestmark = pytest.mark.usefixtures("own_cache", "small_copies")


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
