"""Omniglot that people bring, by its content; and its download, checked."""

import functools
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import png
from PIL import Image

from metarun.datasets import omniglot
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache
from metarun.datasets.images.download import download
from metarun.datasets.options import OmniglotOptions
from metarun.datasets.tasks import Shape

SPLITS = ("train", "val", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


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
            ("vinyals-1200-423", {"train": 1200, "test": 423}),
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
            ("vinyals-1200-423", "949b5437"),
            ("background-evaluation", "8b2be21c"),
            ("random-1100-100-423", "7baf4b49"),
            ("random-1200-423", "5086cd19"),
            ("background-small-1", "7e5070cf"),
            ("background-small-2", "d998601a"),
            ("without-latin", "d29fb725"),
        ],
    )
    def test_splits_stay_as_they_are(self, split, digest):
        names, _ = omniglot.characters()
        told = {each: tuple(names[n] for n in numbers) for each, numbers in omniglot.divide(split).items() if numbers}
        assert hashlib.sha256(repr(told).encode()).hexdigest()[:8] == digest, "results are no longer comparable"

    def test_the_final_models_of_snell_are_tested_on_the_same_characters(self):
        both, final = omniglot.divide("vinyals"), omniglot.divide("vinyals-1200-423")
        assert final["test"] == both["test"] and not final["val"]
        assert sorted(final["train"]) == sorted(both["train"] + both["val"])

    @pytest.mark.parametrize(("number", "characters"), [(1, 136), (2, 156)])
    def test_the_small_sets_are_those_of_the_archives(self, real_data, number, characters):
        """Compare alphabets and drawings with the official archives. Rejected: the other set, or one alphabet more."""
        names, _ = omniglot.characters()
        parts = omniglot.divide(f"background-small-{number}")
        assert len(parts["train"]) == characters and not parts["val"] and len(parts["test"]) == 659
        with zipfile.ZipFile(real_data / "lake" / f"images_background_small{number}.zip") as archive:
            drawn = {match[1] for each in archive.namelist() if (match := omniglot.MEMBER.search(each))}
        assert {int(each) - 1 for each in drawn} == set(parts["train"])
        assert {names[each].split("/")[0] for each in parts["train"]} == set(
            omniglot.SMALL[f"background-small-{number}"]
        )

    def test_without_latin_trains_on_all_other_characters(self, build):
        """Reject 1,603 classes (Greek left out), the split of one of the archives, and turns that are classes."""
        source = build(split="without-latin", rotations="none")
        assert set(source.pools) == {"train"} and source.classes("train") == 1597
        names, _ = omniglot.characters()
        left_out = set(names) - set(source.pools["train"].names)
        assert left_out == {f"Latin/character{number:02}" for number in range(1, 27)}

    def test_classes_of_one_alphabet(self, build):
        source = build(split="background-evaluation", episodes="within-alphabet", rotations="classes")
        classes = source.sample("test", 0, 200, Shape(20, 1, 1), 0).classes.numpy()
        alphabets = np.array([omniglot.alphabet_of(name) for name in source.pools["test"].names])
        assert all(len(set(alphabets[task % 659])) == 1 and len(set(task // 659)) == 1 for task in classes)
        assert len(set(alphabets[classes[:, 0] % 659])) == 20  # all, the smallest of which have 20 characters

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

    def test_fault_24_all_damaged_images_are_told(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            for number in (1, 2, 3):
                whole = png(0, (105, 105), "1")
                archive.writestr(f"A/character01/{number:04}_01.png", whole if number == 2 else whole[:40])
        with pytest.raises(DataError, match="2 images cannot be read") as caught:
            omniglot.prepare([tmp_path / "z.zip"])
        assert "0001_01.png" in str(caught.value) and "0003_01.png" in str(caught.value)

    def test_pixels_and_numbers_decide_not_the_names_of_folders(self, tmp_path, monkeypatch):
        monkeypatch.setattr(omniglot, "DRAWERS", 1)  # 20 times fewer images
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            blank = png(0, (105, 105), "1")
            for number in range(1, 1624):
                archive.writestr(f"Braille_2/character01/{number:04}_01.png", blank)
        with pytest.raises(DataError, match="the images differ from Omniglot's"):
            omniglot.prepare([tmp_path / "z.zip"])
        ink = np.packbits(np.ones((1623, 105, 105), bool))
        monkeypatch.setattr(omniglot, "PIXELS", hashlib.sha256(ink.tobytes()).hexdigest())
        names = omniglot.prepare([tmp_path / "z.zip"]).names
        assert len(set(names)) == 1623
        assert [names[number - 1] for number in (1, 192, 709, 1204)] == [
            "Arcadian/character01", "Braille/character01", "Alphabet_of_the_Magi/character01", "Gurmukhi/character45"
        ]  # fmt: skip


class TestFetch:
    @pytest.fixture
    def address(self, tmp_path):
        """Start a server of one file on this machine and yield its address."""
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

    def test_sha256_is_compared_too_and_messages_name_the_dataset(self, address, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        good = "sha256:" + hashlib.sha256(b"content").hexdigest()
        (path,) = download(address, {"a.zip": good}, "lake-one-shot")
        monkeypatch.setenv("METARUN_OFFLINE", "1")
        assert download(address, {"a.zip": good}) == [path]
        monkeypatch.setenv("METARUN_OFFLINE", "0")
        path.unlink()
        with pytest.raises(DataError, match="its sha256 is not 00.* `metarun data import lake-one-shot PATH"):
            download(address, {"a.zip": "sha256:" + "0" * 64}, "lake-one-shot")

    def test_offline_a_damaged_copy_is_not_downloaded_again(self, address, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        good = hashlib.md5(b"content").hexdigest()
        (path,) = download(address, {"a.zip": good})
        monkeypatch.setenv("METARUN_OFFLINE", "1")
        assert download(address, {"a.zip": good}) == [path]
        path.write_bytes(b"conten")
        with pytest.raises(DataError, match="has no good copy of a.zip and this run is offline"):
            download(address, {"a.zip": good})
        assert path.read_bytes() == b"conten"

    @pytest.mark.parametrize("value", ["0", "false", "No", "OFF", "", " 0 "])
    def test_fault_27_a_no_is_not_offline(self, address, monkeypatch, value):
        """Reject: every text that is not empty means yes."""
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("METARUN_OFFLINE", value)
        (path,) = download(address, {"a.zip": hashlib.md5(b"content").hexdigest()})
        assert path.read_bytes() == b"content"

    @pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
    def test_fault_27_a_yes_is_offline(self, monkeypatch, value):
        monkeypatch.setenv("METARUN_OFFLINE", value)
        with pytest.raises(DataError, match="this run is offline"):
            download("http://127.0.0.1:9/", {"a.zip": "0" * 32})

    def test_a_value_that_is_neither_is_refused(self, monkeypatch):
        monkeypatch.setenv("METARUN_OFFLINE", "perhaps")
        with pytest.raises(DataError, match="METARUN_OFFLINE is 'perhaps': set it to 1 .* or to 0"):
            download("http://127.0.0.1:9/", {"a.zip": "0" * 32})

    def test_no_network_is_one_line(self, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(DataError, match="on a machine without internet give your own copy"):
            download("http://127.0.0.1:9/", {"a.zip": "0" * 32})
