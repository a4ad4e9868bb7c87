"""miniImageNet as people really have it: pickles with other keys, archives of them, class folders without splits."""

import pickle

import copies
import numpy as np
import pytest

from metarun.datasets import miniimagenet
from metarun.datasets.errors import DataError
from metarun.datasets.images import forms
from metarun.datasets.options import MiniImagenetOptions

SPLITS = ("train", "val", "test")
WNIDS = {
    "train": ("n01532829", "n01558993", "n01704323"),
    "val": ("n01855672", "n02091244"),
    "test": ("n01930112", "n01981276"),
}

pytestmark = pytest.mark.usefixtures("own_cache", "small")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(miniimagenet, "CLASSES", {split: len(names) for split, names in WNIDS.items()})
    monkeypatch.setattr(miniimagenet, "IMAGES", 2)


def images_of(split):
    """Return images [classes, 2, 84, 84, 3]."""
    return copies.noise(len(WNIDS[split]), 2, 84, 84, 3, seed=len(split) + ord(split[-1]))


def save(path, told, protocol=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(told, protocol))


def flat(split):
    """Return the images of a split, classes mixed, and the number of each image's class."""
    return images_of(split).swapaxes(0, 1).reshape(-1, 84, 84, 3), list(range(len(WNIDS[split]))) * 2


def gidaris(root):
    """Write the pickles of Gidaris and Komodakis, two of which have other images of the training classes."""
    for split in SPLITS:
        pixels, labels = flat(split)
        told = {"data": pixels, "labels": labels, "catname2label": {name: n for n, name in enumerate(WNIDS[split])}}
        save(root / f"miniImageNet_category_split_{'train_phase_' * (split == 'train')}{split}.pickle", told)
        if split != "train":
            pixels, labels = flat("train")
            save(
                root / f"miniImageNet_category_split_train_phase_{split}.pickle",
                {"data": 255 - pixels, "labels": labels},
            )
    return root


def other_keys(root):
    for split in SPLITS:
        pixels, labels = flat(split)
        save(
            root / f"{split}.pickle", {"images": list(pixels), "labels": np.array([WNIDS[split][n] for n in labels])}, 4
        )
    return root


def cached(root):
    for split in SPLITS:
        pixels, labels = flat(split)
        members = {name: np.flatnonzero(np.array(labels) == n).tolist() for n, name in enumerate(WNIDS[split])}
        save(root / f"mini-imagenet-cache-{split}.pkl", {"image_data": pixels, "class_dict": members})
    return root


def arrays(root):
    root.mkdir()
    for split in SPLITS:
        pixels, labels = flat(split)
        np.savez(root / f"mini_{split}.npz", images=pixels, labels=np.array([WNIDS[split][n] for n in labels]))
    return root


def folders(root, divided=True):
    for split in SPLITS:
        for name, members in zip(WNIDS[split], images_of(split), strict=True):
            folder = root / split / name if divided else root / name
            folder.mkdir(parents=True)
            for number, pixels in enumerate(members):
                (folder / f"{name}_{number}.png").write_bytes(copies.encoded(pixels))
    return root


FORMS = {
    "category_split": gidaris,
    "category_split tar": lambda root: copies.tarred(gidaris(root), root.with_suffix(".tar")),
    "category_split zip": lambda root: copies.zipped(gidaris(root), root.with_suffix(".zip")),
    "other keys": other_keys,
    "tar of pickles": lambda root: copies.tarred(cached(root), root.with_suffix(".tar.gz")),
    "npz": arrays,
    "one tar": lambda root: copies.tarred(folders(root), root.with_suffix(".tar.gz")),
    "one zip": lambda root: copies.zipped(folders(root), root.with_suffix(".zip")),
    "a folder deeper": lambda root: folders(root / "data").parent,
    "undivided": lambda root: folders(root, divided=False),
    "undivided tar": lambda root: copies.tarred(folders(root, divided=False), root.with_suffix(".tgz")),
    "undivided zip": lambda root: copies.zipped(folders(root, divided=False), root.with_suffix(".zip")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, form, capsys):
    """Reject train_phase_val and train_phase_test as the splits, and splits by the order of the names."""
    miniimagenet.import_from([FORMS[form](tmp_path / "mini")])
    source = miniimagenet.build(MiniImagenetOptions())
    for split in SPLITS:
        assert source.pools[split].names == WNIDS[split]
        np.testing.assert_array_equal(source.pools[split].images, images_of(split).reshape(-1, 84, 84, 3))
    assert "warning" not in capsys.readouterr().err


def test_undivided_folders_are_those_that_are_known(tmp_path):
    root = folders(tmp_path / "mini", divided=False)
    (root / "n01532829").rename(root / "n01440764")
    with pytest.raises(
        DataError, match=r"1 class without a split \(n01440764\) whose names are not those of miniImageNet"
    ):
        miniimagenet.import_from([root])
    (root / "n01440764").rename(root / "n01532829")
    (root / "n01532829" / "n01532829_0.png").rename(tmp_path / "x.png")
    with pytest.raises(DataError, match="train has 3 classes of 3; n01532829 has 1 images of 2"):
        miniimagenet.import_from([root])


def test_all_of_imagenet_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    root = folders(tmp_path / "mini")
    for number in range(3):
        (root / "train" / f"n0000000{number}").mkdir()
        (root / "train" / f"n0000000{number}" / "0.png").write_bytes(b"not looked at")
    with pytest.raises(DataError, match="train has 6 classes of 3; n00000000 has 1, ") as told:
        miniimagenet.import_from([root])
    assert "readable" not in str(told.value)


def test_parts_come_from_the_first_path_that_has_them(tmp_path):
    one, two = gidaris(tmp_path / "one"), folders(tmp_path / "two")
    (one / "miniImageNet_category_split_test.pickle").unlink()
    miniimagenet.import_from([one, two])
    assert miniimagenet.build(MiniImagenetOptions()).pools["test"].names == WNIDS["test"]


def test_a_file_is_read_and_none_beside_it(tmp_path):
    """Reject a file whose name is a part of the given one's, such as train.pkl beside x_train.pkl."""
    root = cached(tmp_path / "mini")
    for split in SPLITS:
        (root / f"mini-imagenet-cache-{split}.pkl").rename(root / f"x_{split}.pkl")
    pixels, labels = flat("train")
    save(root / "train.pkl", {"data": 255 - pixels, "labels": [WNIDS["train"][number] for number in labels]})
    miniimagenet.import_from([root / f"x_{split}.pkl" for split in SPLITS])
    source = miniimagenet.build(MiniImagenetOptions())
    np.testing.assert_array_equal(source.pools["train"].images, images_of("train").reshape(-1, 84, 84, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.zeros((6, 84, 84, 3), np.float32)}, "no uint8 images of 84x84x3 under image_data, data or images"),
        ({"data": np.zeros((6, 80, 80, 3), np.uint8)}, "no uint8 images of 84x84x3 under image_data, data or images"),
        ({"data": [1, 2, 3, 4, 5, 6]}, "image 0 is a int: neither an array nor an encoded image"),
        ({"data": [np.zeros((8, 8, 3), np.uint8)] * 6}, r"image 0 is uint8\[8, 8, 3\], not a uint8 image of 84x84x3"),
        ({"data": [b"x"] * 6}, "image 0 is not a readable image"),
        ({"labels": [0, 1]}, "has 2 labels for 6 images"),
        ({"labels": []}, "has 0 labels for 6 images"),
    ],
)
def test_arrays_that_make_no_sense(tmp_path, change, words):
    root = gidaris(tmp_path / "mini")
    path = root / "miniImageNet_category_split_train_phase_train.pickle"
    save(path, pickle.loads(path.read_bytes()) | change)
    with pytest.raises(DataError, match=words):
        miniimagenet.import_from([root])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.tar.gz", "train"),
        ("mini-imagenet-cache-val.pkl", "val"),
        ("CIFAR_FS_validation.pickle", "val"),
        ("miniImageNet_category_split_train_phase_train.pickle", "train"),
        ("miniImageNet_category_split_train_phase_val.pickle", None),
        ("miniImageNet_category_split_train_phase_test.pickle", None),
        ("training.pkl", None),
        ("latest.pkl", None),
    ],
)
def test_the_split_in_a_name(name, split):
    assert forms.split_of(name) == split
