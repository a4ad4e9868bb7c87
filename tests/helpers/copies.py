"""Small copies of published datasets, in the forms in which they lie around, made of noise."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

from metarun.datasets import cifar100, cub, emnist, tieredimagenet

IMAGES = 2  # of a class, in place of hundreds
TRAINING = 1  # of them, where the original has a batch for training and one for tests
TIERED = {"train": 4, "val": 3, "test": 3}


def shrink(monkeypatch, images=IMAGES):
    """Make the imports expect the small copies, with so many images per class."""
    monkeypatch.setattr("copies.IMAGES", images)
    monkeypatch.setattr(cifar100, "IMAGES", images)
    monkeypatch.setattr(cub, "TOTAL", {"all": 200 * images})
    monkeypatch.setattr(emnist, "TOTAL", {"all": 62 * images})
    monkeypatch.setattr(tieredimagenet, "CLASSES", TIERED)
    monkeypatch.setattr(tieredimagenet, "TOTALS", {split: number * images for split, number in TIERED.items()})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(pixels, form="PNG"):
    data = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(data, form)
    return data.getvalue()


def cifar_images():
    """Return 100 x IMAGES images by class, and the names of the classes by label number."""
    return noise(100, IMAGES, 32, 32, 3), list(cifar100.divisions()["fc100"])


def cifar_batches():
    """Yield name, pixels [n, 3072] by channel, fine labels of the batches train and test, the classes mixed."""
    images, _ = cifar_images()
    for name, own in (("train", slice(None, TRAINING)), ("test", slice(TRAINING, None))):
        mixed = images[:, own].swapaxes(0, 1)  # [n, 100, ...]
        rows = np.moveaxis(mixed.reshape(-1, 32, 32, 3), -1, 1).reshape(-1, 3072)
        yield name, rows, list(range(100)) * len(mixed)


def cifar_python(folder):
    """Write the folder cifar-100-python, as Python 2 pickled it."""
    (folder / "cifar-100-python").mkdir(parents=True)
    for name, rows, labels in cifar_batches():
        told = {"data": rows, "fine_labels": labels, "coarse_labels": labels, "filenames": ["x.png"] * len(rows)}
        (folder / "cifar-100-python" / name).write_bytes(pickle.dumps(told, 2))
    meta = {"fine_label_names": cifar_images()[1], "coarse_label_names": ["fish"]}
    (folder / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta, 2))
    return folder / "cifar-100-python"


def cifar_binary(folder):
    """Write the folder cifar-100-binary."""
    (folder / "cifar-100-binary").mkdir(parents=True)
    for name, rows, labels in cifar_batches():
        marks = np.stack([np.zeros(len(labels), np.uint8), np.array(labels, np.uint8)], axis=1)
        (folder / "cifar-100-binary" / f"{name}.bin").write_bytes(np.concatenate([marks, rows], axis=1).tobytes())
    (folder / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join(cifar_images()[1]) + "\n\n")
    return folder / "cifar-100-binary"


def cifar_classes(folder):
    """Write R2D2's class folders cifar100/data/apple/*.png, with its lists beside them."""
    images, names = cifar_images()
    for name, members in zip(names, images, strict=True):
        (folder / "cifar100" / "data" / name).mkdir(parents=True)
        for number, pixels in enumerate(members):
            (folder / "cifar100" / "data" / name / f"{number}.png").write_bytes(encoded(pixels))
    (folder / "cifar100" / "splits").mkdir()
    (folder / "cifar100" / "splits" / "train.txt").write_text("apple\n")
    return folder / "cifar100"


def cifar_pickles(folder, dataset="cifar-fs", stem="CIFAR_FS", label=lambda number: number):
    """Write CIFAR_FS_train.pickle and so on, as Python 2 pickled them: data and a list of labels."""
    images, names = cifar_images()
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        own = [number for number, name in enumerate(names) if cifar100.divisions()[dataset][name] == split]
        told = {
            "data": images[own].reshape(-1, 32, 32, 3),
            "labels": [label(number) for number in own for _ in range(IMAGES)],
        }
        (folder / f"{stem}_{split}.pickle").write_bytes(pickle.dumps(told, 2))
    return folder


def cub_folder(folder):
    """Write CUB_200_2011 with its class folders, and other files as in the original."""
    names = [name for members in cub.division("100-50-50").values() for name in members]
    images = noise(200, IMAGES, 6, 9, 3)
    for name, members in zip(sorted(names), images, strict=True):
        (folder / "CUB_200_2011" / "images" / name).mkdir(parents=True)
        for number, pixels in enumerate(members):
            (folder / "CUB_200_2011" / "images" / name / f"{name[4:]}_{number:04}.jpg").write_bytes(
                encoded(pixels, "JPEG")
            )
    (folder / "CUB_200_2011" / "segmentations" / names[0]).mkdir(parents=True)
    (folder / "CUB_200_2011" / "segmentations" / names[0] / "x.png").write_bytes(encoded(images[0, 0]))
    (folder / "CUB_200_2011" / "classes.txt").write_text("1 001.Black_footed_Albatross\n")
    return folder / "CUB_200_2011"


def emnist_files(folder):
    """Write the four IDX files by class, the images transposed; return the images as they are to be read."""
    images = noise(62, IMAGES, 28, 28)
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in (("train", slice(None, TRAINING)), ("test", slice(TRAINING, None))):
        mixed = images[:, own].swapaxes(0, 1)
        stored = mixed.reshape(-1, 28, 28).transpose(0, 2, 1)
        labels = bytes(list(range(62)) * len(mixed))
        for kind, magic, shape, data in (
            ("images-idx3", 0x803, stored.shape, stored.tobytes()),
            ("labels-idx1", 0x801, (len(labels),), labels),
        ):
            header = struct.pack(f">{1 + len(shape)}I", magic, *shape)
            (folder / f"emnist-byclass-{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + data))
    return images


def tiered_pickles(folder, images):
    """Write the original form: a list of encoded images and labels with names, by Python 2.

    Args:
        folder: Where the files are written.
        images: [classes, IMAGES, 84, 84, 3] of each split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, members in images.items():
        flat = members.swapaxes(0, 1).reshape(-1, 84, 84, 3)
        shaped = [np.frombuffer(encoded(image), np.uint8) for image in flat]
        shaped[1:] = [each[:, None] for each in shaped[1:]]  # both shapes are about
        (folder / f"{split}_images_png.pkl").write_bytes(pickle.dumps(shaped, 2))
        labels = np.tile(np.arange(len(members)), IMAGES)
        names = [f"{split} {number // 2}" for number in range(len(members))]  # such as crane, which is two classes
        told = {"label_specific": labels, "label_general": labels, "label_specific_str": names, "label_general_str": []}
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps(told, 2))
    return folder


def tiered_arrays(folder, images):
    """Write the form of MetaOptNet: {split}_images.npz and {split}_labels.pkl with numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for split, members in images.items():
        np.savez_compressed(folder / f"{split}_images.npz", images=members.swapaxes(0, 1).reshape(-1, 84, 84, 3))
        labels = [first + number for number in range(len(members))] * IMAGES
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps({"labels": labels}))
        first += len(members)
    return folder


def tiered_images():
    """Return reddish noise of each split."""
    images = {
        split: noise(number, IMAGES, 84, 84, 3, seed=number + len(split)) // 2 for split, number in TIERED.items()
    }
    for members in images.values():
        members[..., 0] += 60
    return images


def tarred(folder, path):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        archive.add(folder, folder.name)
    return path


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(folder.rglob("*")):
            archive.write(each, each.relative_to(folder.parent))
    return path


def small(name, folder):
    """Write a small copy of a published dataset and return its path."""
    if name in ("cifar-fs", "fc100"):
        return cifar_python(folder)
    if name == "cub":
        return cub_folder(folder)
    if name == "emnist":
        emnist_files(folder / "emnist")
        return folder / "emnist"
    return tiered_arrays(folder / "tiered", tiered_images())
