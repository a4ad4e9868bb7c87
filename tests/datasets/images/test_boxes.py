"""Folders, zips and tars from strangers: no name in them becomes a path, and what cannot be read is one clear line."""

import io
import tarfile
import zipfile

import pytest
from copies import noise
from pictures import png

from metarun.datasets import miniimagenet
from metarun.datasets.errors import DataError
from metarun.datasets.images import boxes, forms
from metarun.datasets.images.layout import Layout

LAYOUT = Layout("x", "X", (8, 8, 3), {"train": 1, "val": 1, "test": 1}, "a copy", images=1)


def items(path):
    return list(forms.items([path], LAYOUT))


def add(archive, name, data=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    archive.addfile(info, io.BytesIO(data))


def test_names_never_become_paths(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "x.zip", "w") as archive:
        for name in ("../../evil/train/a/0.png", "/val/b/0.png", "./test/c/0.png"):
            archive.writestr(name, png(size=(8, 8)))
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as archive:
        for name in ("../../evil/train/a/0.png", "/val/b/0.png", "./test/c/0.png"):
            add(archive, name, png(size=(8, 8)))
    for archive in ("x.zip", "x.tar"):
        assert [(each.split, each.name) for each in items(tmp_path / "in" / archive)] == [
            ("train", "a"),
            ("val", "b"),
            ("test", "c"),
        ]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "x.tar", "x.zip"]


def test_links_and_devices_are_left_out(tmp_path):
    """Reject an archive that reads files of the machine through links."""
    (tmp_path / "secret.png").write_bytes(png(size=(8, 8)))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "train/a/0.png", kind=tarfile.SYMTYPE, link=str(tmp_path / "secret.png"))
        add(archive, "train/a/1.png", kind=tarfile.LNKTYPE, link="../secret.png")
        add(archive, "train/a/2.png", kind=tarfile.CHRTYPE)
        add(archive, "train/a/3.png", kind=tarfile.FIFOTYPE)
    with boxes.opened(tmp_path / "x.tar") as box:
        assert box.names == []


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz"])
@pytest.mark.parametrize("damage", ["nothing", "cut", "empty"])
def test_damaged_archives_are_named(tmp_path, name, damage):
    path = tmp_path / name
    if damage == "cut":
        if name.endswith("zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("train/a/0.png", noise(9999).tobytes())
        else:
            with tarfile.open(path, "w:gz" if "gz" in name else "w") as archive:
                add(archive, "train/a/0.png", noise(9999).tobytes())
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.write_bytes(b"nothing at all" * 50 if damage == "nothing" else b"")
    with pytest.raises(DataError, match=rf"{name} is not a readable (zip|tar) archive .*: copy it again"):
        items(path)


def test_an_image_that_unpacks_to_a_lot_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "MAXIMUM_FILE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/0.png", bytes(2 << 20))
    with pytest.raises(DataError, match=r"train/a/0.png has over 1 MiB"):
        items(tmp_path / "x.zip")


def test_an_encrypted_zip_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train/a/0.png", png(size=(8, 8)))
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[6] |= 1  # the flag in the file's own header, and that in the list at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"not a readable zip archive \(.*encrypted"):
        items(tmp_path / "x.zip")


def test_circles_of_links_end(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.png").write_bytes(png(size=(8, 8)))
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    with boxes.opened(tmp_path) as box:
        assert "train/a/0.png" in box.names and len(box.names) <= boxes.DEEPEST


def test_a_table_without_images_beside_it_gives_way_to_class_folders(tmp_path):
    """Reject Ravi's tables that lie beside images which another tool has sorted into folders."""
    (tmp_path / "train" / "n0").mkdir(parents=True)
    (tmp_path / "train" / "n0" / "0.png").write_bytes(png(size=(8, 8)))
    (tmp_path / "train.csv").write_text("filename,label\nx.png,n0\n")
    assert [each.name for each in items(tmp_path)] == ["n0"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(png(size=(8, 8)))
    assert [each.order for each in items(tmp_path)] == ["images/x.png"]


def test_an_import_that_fails_leaves_nothing(tmp_path, own_cache):
    (tmp_path / "x.tar").write_bytes(b"nothing")
    with pytest.raises(DataError):
        miniimagenet.import_from([tmp_path / "x.tar"])
    assert [path.name for path in own_cache.iterdir()] == [".miniimagenet.lock"]
