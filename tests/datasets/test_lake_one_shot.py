"""Lake's one-shot test that people bring: its content decides, not its packing; and the real one."""

import hashlib
import io
import re
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from metarun.algorithms.hausdorff import ModifiedHausdorff
from metarun.algorithms.options import HausdorffOptions
from metarun.datasets import build_test, lake_one_shot, omniglot
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache
from metarun.datasets.images.drawings import decode, members, shrink
from metarun.datasets.options import OmniglotOptions
from metarun.datasets.tasks import Shape

WRONG = [9, 7, 8, 5, 6, 3, 12, 7, 8, 11, 3, 14, 13, 7, 3, 5, 6, 8, 14, 6]  # of 20, by the modified Hausdorff distance
pytestmark = pytest.mark.usefixtures("own_cache")


def drawing(run, number, kind):
    """Return a PNG whose pixels tell its run, number and kind."""
    bits = np.unpackbits(np.array([run, number, kind, 1], np.uint8)).astype(bool)
    ink = np.zeros((105, 105), bool)
    ink[10 * kind :, :32] = bits
    data = io.BytesIO()
    Image.fromarray(~ink).save(data, "PNG")
    return data.getvalue(), ink


def item_of(run, number):
    """Return the test item of a class: another permutation in each run."""
    return (number * 3 + run) % 20 + 1  # 3 and 20 have no common factor


@pytest.fixture(scope="module")
def files():
    """Return the files of an archive of this form, by name."""
    made = {}
    for run in range(1, 21):
        labels = {}
        for number in range(1, 21):
            item = item_of(run, number)
            made[f"run{run:02}/training/class{number:02}.png"] = drawing(run, number, 0)[0]
            made[f"run{run:02}/test/item{item:02}.png"] = drawing(run, number, 1)[0]
            labels[item] = f"run{run:02}/test/item{item:02}.png run{run:02}/training/class{number:02}.png"
        made[f"run{run:02}/class_labels.txt"] = "\n".join(labels[item] for item in range(1, 21)).encode()
    return made


@pytest.fixture
def content(monkeypatch):
    """Let the archive of `files` pass as the original."""
    bitmaps = [drawing(run, number, kind)[1] for run in range(1, 21) for number in range(1, 21) for kind in (0, 1)]
    digest = hashlib.sha256(np.packbits(np.stack(bitmaps)).tobytes()).hexdigest()
    monkeypatch.setattr(lake_one_shot, "CONTENT", digest)
    return np.reshape(bitmaps, (20, 20, 2, 105, 105))


def packed(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return [path]


def test_any_packing_is_read_and_labels_join_the_images(files, content, tmp_path):
    """Reject the items in the order of their numbers, which pairs images of different characters."""
    for name, data in files.items():
        path = tmp_path / "folder" / "all_runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    more = {f"any/where/{name}": data for name, data in files.items()} | {"any/notes.txt": b"x", "run01/x.png": b"x"}
    for paths in ([tmp_path / "folder"], packed(tmp_path / "other.zip", more)):
        prepared = lake_one_shot.prepare(paths)
        images = np.stack(list(prepared.images))
        np.testing.assert_array_equal(images.reshape(20, 20, 2, 105, 105) > 0, content)
        assert (prepared.counts == 2).all() and prepared.names[-1] == "Tibetan/run20/class20"


LABELS = "run03/class_labels.txt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run02/test/item07.png": None}, "run02 lacks test/item07.png"),
        ({f"run02/training/class{n:02}.png": None for n in range(1, 6)}, "class03.png and 2 more"),
        ({LABELS: None}, "run03 has no class_labels.txt that names each of its 20 test images and classes once"),
        ({LABELS: lambda text: text[: len(text) // 2]}, "run03 has no class_labels.txt that names each"),
        ({LABELS: lambda text: b"\n".join(text.splitlines()[::-1])}, "run03 has no class_labels.txt that names each"),
        ({LABELS: lambda text: text.replace(b"class07", b"class08")}, "run03 has no class_labels.txt that names each"),
        ({LABELS: lambda text: text.replace(b"run03", b"run04")}, "run03 has no class_labels.txt that names each"),
        ({LABELS: lambda text: text + b"\n\xff\xfe"}, "run03 has no class_labels.txt that names each"),
        (
            {
                LABELS: lambda text: (
                    text.replace(b"class07", b"x").replace(b"class08", b"class07").replace(b"x", b"class08")
                )
            },
            "images or labels differ from those of Lake et al.: fetch the official all_runs.zip",
        ),
        ({"run01/test/item01.png": drawing(9, 9, 1)[0]}, "images or labels differ from those of Lake et al."),
        ({"run01/test/item01.png": b"nonsense"}, "run01/test/item01.png is not a readable PNG"),
        ({"run01/test/item01.png": bytes(2 << 20)}, "run01 lacks test/item01.png"),  # far too large a file
        (
            {"run05/test/item01.png": lambda png: png[:60], "run05/test/item02.png": lambda png: png[:60]},
            "2 images cannot be read",
        ),
        ({"../../run00/test/item01.png": drawing(1, 1, 1)[0]}, ""),  # no run of that number
    ],
)
def test_hostile_and_mistaken_archives(files, content, tmp_path, change, message):
    changed = dict(files)
    for name, new in change.items():
        changed[name] = new(files[name]) if callable(new) else new
    paths = packed(tmp_path / "x.zip", {name: data for name, data in changed.items() if data is not None})
    if message:
        with pytest.raises(DataError, match=re.escape(message)):
            lake_one_shot.import_from(paths)
        assert cache.read("lake-one-shot") is None
    else:
        lake_one_shot.import_from(paths)
    assert not list(tmp_path.rglob("*.png"))


def test_archives_that_are_none(tmp_path, files):
    (tmp_path / "x.zip").write_bytes(packed(tmp_path / "y.zip", files)[0].read_bytes()[:5000])
    with pytest.raises(DataError, match="x.zip is not a readable zip archive"):
        lake_one_shot.prepare([tmp_path / "x.zip"])
    with pytest.raises(DataError, match="does not exist"):
        lake_one_shot.prepare([tmp_path / "nothing.zip"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it is not all of all_runs.zip") as caught:
        lake_one_shot.prepare([tmp_path / "empty"])
    assert len(str(caught.value).splitlines()) == 21


def test_tasks_are_the_runs_in_order(files, content, tmp_path):
    """Reject tasks that depend on a seed; a batch beyond the last run begins again."""
    lake_one_shot.import_from(packed(tmp_path / "x.zip", files))
    source = build_test(OmniglotOptions(split="background-evaluation", ink=0), "lake-one-shot", original=True)
    shape = Shape(20, 1, 1)
    source.check("lake-one-shot", shape)
    batch = source.sample("lake-one-shot", 18, 3, shape, 5)
    np.testing.assert_array_equal(batch.query_x[..., 0], 1 - content[[18, 19, 0], :, 1])
    np.testing.assert_array_equal(batch.support_x[..., 0], 1 - content[[18, 19, 0], :, 0])
    assert batch.query_y.numpy().tolist() == [list(range(20))] * 3
    np.testing.assert_array_equal(source.pixels(batch.support_x)[..., 0], content[[18, 19, 0], :, 0])
    for wrong in (("test", shape), ("lake-one-shot", Shape(5, 1, 1))):
        with pytest.raises(DataError, match="lake-one-shot has tasks of lake-one-shot"):
            source.check(*wrong)
    small = build_test(OmniglotOptions(split="background-evaluation"), "lake-one-shot")
    one = small.sample("lake-one-shot", 0, 1, shape, 0)
    assert small.input_shape == (28, 28, 1)
    np.testing.assert_array_equal(255 * one.support_x[0, 4, ..., 0], shrink(content[0, 4, 0]))


class TestReal:
    @pytest.fixture
    def source(self, real_data):
        lake_one_shot.import_from([real_data / "lake" / "all_runs.zip"])
        return build_test(OmniglotOptions(split="background-evaluation"), "lake-one-shot", original=True)

    @pytest.mark.parametrize("runs", [2, pytest.param(20, marks=pytest.mark.slow)])
    def test_the_baseline_makes_the_known_mistakes(self, source, runs):
        """Reject labels that are not those of the archive, and images that are resized."""
        batch = source.sample("lake-one-shot", 0, runs, source.shape, 0)
        accuracy = ModifiedHausdorff(HausdorffOptions(), source).evaluate(batch)["accuracy"].numpy()
        assert np.rint(20 * (1 - accuracy)).astype(int).tolist() == WRONG[:runs]
        assert sum(WRONG) == 155

    @pytest.mark.slow
    def test_every_image_is_one_of_the_evaluation_set(self, source, real_data):
        """Compare all images: each is used once, both images of a class are of its character."""
        names, _ = omniglot.characters()
        found = {}
        for member, data in members(real_data / "omniglot" / "images_evaluation.zip", omniglot.MEMBER):
            number = int(omniglot.MEMBER.search(member)[1]) - 1
            if omniglot.alphabet_of(names[number]) in lake_one_shot.ALPHABETS:
                found[decode(data, member).tobytes()] = number, member
        used, drawers = Counter(), []
        for alphabet, run in zip(source.groups, source.images[..., 0] > 0, strict=True):
            pairs = [[found[image.tobytes()] for image in images] for images in run]
            assert all(one[0] == other[0] for one, other in pairs)
            assert {omniglot.alphabet_of(names[one[0]]) for one, _ in pairs} == {alphabet}
            assert len({one[0] for one, _ in pairs}) == 20
            used.update(member for pair in pairs for _, member in pair)
            drawers += [{pair[kind][1][-6:-4] for pair in pairs} for kind in (0, 1)]
        assert len(used) == 800 and set(used.values()) == {1}
        assert all(len(each) == 1 for each in drawers)
