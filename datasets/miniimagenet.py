"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle (2017): 64 / 16 / 20 classes x 600, 84x84.

ImageNet's images may not be redistributed, so there is no download. `metarun data import miniimagenet PATH...` reads
the user's copy, in any of the usual forms:
- folders or tar archives train, val, test with class folders in them;
- Ravi's train.csv, val.csv and test.csv (filename,label) beside a folder images/;
- the pickles mini-imagenet-cache-{train,val,test}.pkl, read by an unpickler that can only build arrays.
The classes are compared with the known ones, and the images of all splits with each other (`ravi_split`).
Images of another size are resized to 84x84 by Lanczos (recipes differ in the filter, and results with it).
"""

from __future__ import annotations

import csv
import hashlib
import lzma
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from . import ravi_split
from .errors import DataError, listed
from .images import cache, decode, pickles
from .options import MiniImagenetOptions

if TYPE_CHECKING:
    from .images.source import ClassPool, ImageSource
    from .tasks import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
CLASSES: dict[Split, int] = {"train": 64, "val": 16, "test": 20}
IMAGES, SIZE = 600, (84, 84)
MAXIMUM_FILE = 64 << 20  # bytes of one image
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Found = dict[str, list[np.ndarray]]  # class name -> images [84, 84, 3]


def build(options: MiniImagenetOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The data have not been imported.
    """
    from .images.source import ClassPool, ImageSource

    prepared = _read_all(_cached)
    if prepared is None:
        raise DataError(
            "miniimagenet has not been imported: `metarun data import miniimagenet PATH...` reads your copy (class "
            "folders or tar archives by split, Ravi's CSVs with images/, or the pickled cache)"
        )
    _refuse_others(prepared, f"miniimagenet in {cache.folder()}", "import it again")
    pools: dict[Split, ClassPool] = {
        split: ClassPool(prepared[split].images, prepared[split].counts, prepared[split].names) for split in SPLITS
    }
    mean, std = _normalisation(options.normalisation, prepared["train"])
    digest = _digest(prepared)
    return ImageSource(
        "miniimagenet", pools, mean=mean, std=std, in_memory=options.in_memory, content_digest=digest, dtype=dtype
    )


def import_from(paths: Sequence[Path]) -> None:
    """Fill the cache from the user's copy. Older data stay until all of it is read.

    Raises:
        DataError: The copy does not hold all 100 classes with 600 images each, has classes or images in two splits, or
            cannot be read.
    """
    shown = ", ".join(map(str, paths))
    with cache.locked("miniimagenet"):
        try:
            wrong = []
            for split in SPLITS:
                try:
                    cache.store(_new(split), prepare(paths, split))
                except DataError as error:
                    wrong.append(str(error))
            if wrong:
                raise DataError(listed(f"{shown}: {len(wrong)} splits cannot be imported", list(dict.fromkeys(wrong))))
            if (prepared := _read_all(_new)) is None:
                raise DataError(f"{cache.folder()} cannot be read back after writing: check the disk")
            _refuse_others(prepared, shown, "use another copy", _new)
            if unknown := ravi_split.unknown_names(prepared):
                print(f"warning: {shown}: {unknown}", file=sys.stderr)
            for split in SPLITS:
                cache.rename(_new(split), _cached(split))
        finally:
            for split in SPLITS:
                cache.remove(_new(split))


def _read_all(name: Callable[[str], str]) -> dict[Split, cache.Stored] | None:
    """Return the three splits from the cache, or None if one is missing."""
    found: dict[Split, cache.Stored] = {split: stored for split in SPLITS if (stored := cache.read(name(split)))}
    return found if len(found) == len(SPLITS) else None


def _digest(prepared: Mapping[Split, cache.Stored]) -> str:
    return hashlib.sha256(" ".join(prepared[split].digest for split in SPLITS).encode()).hexdigest()


def _refuse_others(
    prepared: Mapping[Split, cache.Stored], where: str, way_out: str, name: Callable[[str], str] | None = None
) -> None:
    """Raise DataError if the splits are not those of Ravi and Larochelle; what was checked once is noted in the cache.

    An older version imported whatever had the right numbers of images.
    """
    digest = _digest(prepared)
    if prepared["train"].facts.get("checked") == digest:
        return
    if wrong := list(ravi_split.problems(prepared)):
        raise DataError(
            f"{where} is not miniImageNet in the split of Ravi and Larochelle ({'; '.join(wrong)}): {way_out}"
        )
    cache.note((name or _cached)("train"), checked=digest)


def prepare(paths: Sequence[Path], split: Split) -> cache.Prepared:
    """Read one split from the first of `paths` that has it.

    Raises:
        DataError: No path has the split, or it is not complete.
    """
    found = next((classes for path in paths if (classes := _read(path, split))), None)
    shown = ", ".join(map(str, paths))
    if not found:
        raise DataError(
            f"{shown}: no {split} split: expected {split}/<class>/*.jpg, {split}.tar(.gz), {split}.csv with images/, "
            f"or mini-imagenet-cache-{split}.pkl"
        )
    wrong = [f"{name} has {len(each)}" for name, each in sorted(found.items()) if len(each) != IMAGES]
    if len(found) != CLASSES[split] or wrong:
        raise DataError(
            f"{shown}: {split} has {len(found)} classes of {CLASSES[split]}"
            + (f"; {', '.join(wrong[:20])} images of {IMAGES}" if wrong else "")
            + ": the copy is not complete, or not the split of Ravi and Larochelle"
        )
    names = sorted(found)
    mean, std = moments(image for name in names for image in found[name])
    pixels = (image for name in names for image in found[name])
    facts = {"mean": mean.tolist(), "std": std.tolist()}
    return cache.Prepared(pixels, np.full(len(names), IMAGES), tuple(names), facts)


def moments(pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each channel of uint8 images [H, W, C], over 255.

    They are exact, from counts of values.
    """
    counts = sum(
        np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(picture, -1, 0)])
        for picture in pictures
    )  # [C, 256]
    values, total = np.arange(256) / 255, np.sum(counts, axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)


def _normalisation(name: str, train: cache.Stored) -> tuple[Sequence[float], Sequence[float]]:
    if name == "unit":
        return (0.0,), (1.0,)
    return IMAGENET if name == "imagenet" else (train.facts["mean"], train.facts["std"])


def _read(path: Path, split: Split) -> Found:
    """Return the classes of a split at `path`, in whichever form it has; an empty dict if it has none."""
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_file():
        if path.suffix == ".pkl":
            return _from_pickle(path) if split in path.stem else {}
        if path.suffix == ".csv":
            return _from_csv(path, path.parent / "images") if path.stem == split else {}
        return _from_tar(path) if path.name.split(".")[0] == split else {}
    if (path / f"{split}.csv").is_file():
        return _from_csv(path / f"{split}.csv", path / "images")
    if (path / split).is_dir():
        return _from_folder(path / split)
    candidates = [f"{split}.tar", f"{split}.tar.gz", f"{split}.tgz", f"mini-imagenet-cache-{split}.pkl"]
    inside = [path / name for name in candidates if (path / name).is_file()]
    if inside:
        return _read(inside[0], split)
    return _from_folder(path) if path.name == split else {}


def _collect(entries: Iterator[tuple[str, str, bytes]], label: str) -> Found:
    """Decode (class, name, bytes) entries, ordered by name within a class."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    damaged: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, where, data in tqdm(entries, desc=label, unit="image", delay=2, disable=not sys.stderr.isatty()):
            try:
                found.setdefault(name, []).append((where, decode.decode(data, where, SIZE, 3)))
            except DataError as error:
                damaged.append(str(error))
            most = max(CLASSES.values())  # all of ImageNet would take hours
            if len(found) > most:
                raise DataError(f"{label}: {where} is of class number {most + 1}: miniImageNet has {most} at most")
            if len(found[name]) > IMAGES:
                raise DataError(
                    f"{label}: {where} is image number {IMAGES + 1} of its class: miniImageNet has {IMAGES}"
                )
    if damaged:
        raise DataError(listed(f"{label}: {len(damaged)} images cannot be read", damaged))
    return {name: [image for _, image in sorted(each, key=lambda pair: pair[0])] for name, each in found.items()}


def _from_folder(folder: Path) -> Found:
    def entries() -> Iterator[tuple[str, str, bytes]]:
        for path in sorted(folder.glob("*/*")):
            if decode.is_image(path.name) and path.is_file():
                yield path.parent.name, str(path), path.read_bytes()

    return _collect(entries(), folder.name)


def _from_tar(path: Path) -> Found:
    """Read the members in memory; no name in the archive becomes a path, and links are skipped."""

    def entries() -> Iterator[tuple[str, str, bytes]]:
        with tarfile.open(path) as archive:
            for member in archive:
                inner = PurePosixPath(member.name)
                if member.isfile() and decode.is_image(inner.name) and member.size <= MAXIMUM_FILE:
                    file = archive.extractfile(member)
                    yield inner.parent.name, f"{path}: {member.name}", file.read() if file else b""

    try:
        return _collect(entries(), path.name)
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())  # tarfile's message may have one line per compression
        raise DataError(f"{path} is not a readable tar archive ({reason}): copy it again") from None


def _from_csv(table: Path, folder: Path) -> Found:
    def entries() -> Iterator[tuple[str, str, bytes]]:
        missing = []
        with open(table, encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                name = Path(row.get("filename") or "").name  # no path out of the folder
                if not (folder / name).is_file():
                    missing.append(f"{table} names {name!r}, which is not in {folder}")
                    continue
                yield row.get("label") or "", str(folder / name), (folder / name).read_bytes()
        if missing:
            raise DataError(listed(f"{len(missing)} images are missing", missing))

    try:
        return _collect(entries(), table.name)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a table with the columns filename and label ({error})") from None


def _from_pickle(path: Path) -> Found:
    """Read {"image_data": [N, 84, 84, 3] uint8, "class_dict": name -> indices}, or {"data": ..., "labels": ...}."""
    content = pickles.load_arrays(path)
    pixels = content.get("image_data", content.get("data"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (*SIZE, 3):
        raise DataError(f"{path} has no uint8 images of 84x84x3 under image_data or data")
    try:
        if isinstance(content.get("class_dict"), dict):
            members = {str(name): _numbers(rows) for name, rows in content["class_dict"].items()}
        else:
            labels = np.asarray(_flat(content.get("labels", [])))
            members = {str(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path} has no image numbers under class_dict, or not one label per image under labels ({error})"
        ) from None
    if any(rows.ndim != 1 or not ((rows >= 0) & (rows < len(pixels))).all() for rows in members.values()):
        raise DataError(f"{path} has class members beyond its {len(pixels)} images")
    if any(len(np.unique(rows)) < len(rows) for rows in members.values()):
        raise DataError(f"{path} has an image twice in a class")
    return {name: [pixels[row] for row in rows] for name, rows in members.items()}


def _numbers(rows: Any) -> np.ndarray:
    """Return the rows as int64 `[n]`."""
    return np.asarray(_flat(rows), np.int64)


def _flat(rows: Any) -> Any:
    """Return the rows, or raise ValueError for nested lists before looking into them: their size may be anything."""
    if not isinstance(rows, np.ndarray) and any(isinstance(row, list | tuple | dict | np.ndarray) for row in rows):
        raise ValueError("a list in a list")
    return rows


def _cached(split: str) -> str:
    return f"miniimagenet-{split}"


def _new(split: str) -> str:
    return f"{_cached(split)}-new"
