"""Archives: equal bytes for equal content, and whatever a stranger made is refused before it is written anywhere."""

import json
import re
import stat
import struct
import zipfile

import pytest

from metarun.experiments.errors import RunError
from metarun.experiments.system import archives

KNOWN = re.compile(r"[ab]\.txt|sub/c\.csv")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "one.zip"
    archives.write(path, {"b.txt": b"two", "a.txt": b"one", "sub/c.csv": b""}, {"seed": 3})
    return path


def rewritten(path, change, **options):
    """Write the archive again with each member changed: `change(info, data)` returns members (info, data)."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for info, data in members:
            for each, content in change(info, data):
                archive.writestr(each, content, compress_type=options.get("compression"))
    return path


def refusal(path):
    """Return why an archive is refused, in one line that names it."""
    with pytest.raises(RunError) as told:
        archives.read(path, KNOWN)
    assert str(path) in str(told.value) and "\n" not in str(told.value)
    return str(told.value)


def test_equal_content_gives_equal_bytes(file, tmp_path):
    """Reject times of files, and the order in which members were given."""
    archives.write(tmp_path / "two.zip", {"sub/c.csv": b"", "a.txt": b"one", "b.txt": b"two"}, {"seed": 3})
    assert file.read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert archives.read(file, KNOWN) == {"a.txt": b"one", "b.txt": b"two", "sub/c.csv": b""}
    assert archives.read(file, KNOWN, re.compile("a.txt")) == {"a.txt": b"one"}
    with zipfile.ZipFile(file) as archive:
        assert [info.filename for info in archive.infolist()] == ["manifest.json", "a.txt", "b.txt", "sub/c.csv"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.txt", "sub/../../a.txt", "x.txt", "a.txt/", "C:\\a.txt", "A.TXT"]
)
def test_unknown_names_are_refused(file, name):
    assert "does not write" in refusal(
        rewritten(file, lambda info, data: [(name if info.filename == "a.txt" else info, data)])
    )


def test_a_link_is_refused(file):
    def change(info, data):
        if info.filename == "a.txt":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return [(info, data)]

    assert "no plain file" in refusal(rewritten(file, change))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(file):
    assert "'a.txt' twice" in refusal(
        rewritten(file, lambda info, data: [(info, data)] * (1 + (info.filename == "a.txt")))
    )


def test_compressed_members_are_refused(file):
    """Reject bombs: what is stored cannot grow."""
    assert "compressed" in refusal(
        rewritten(file, lambda info, data: [(info.filename, data)], compression=zipfile.ZIP_DEFLATED)
    )


def test_sizes_that_overlap_are_refused(file):
    """Reject a directory whose members share bytes, so that the whole is larger than the file."""
    data = bytearray(file.read_bytes())
    place = -1
    while (place := data.find(b"PK\x01\x02", place + 1)) >= 0:
        if data[place + 46 :].startswith((b"a.txt", b"b.txt")):
            data[place + 20 : place + 28] = struct.pack("<II", len(data), len(data))
    file.write_bytes(bytes(data))
    assert "more than the file" in refusal(file)


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1, -30])
def test_a_cut_file_is_refused(file, cut):
    file.write_bytes(file.read_bytes()[:cut])
    assert re.search("no whole archive|not written by", refusal(file))


def test_every_changed_byte_of_a_member_is_found(file):
    data = file.read_bytes()
    file.write_bytes(data.replace(b"one", b"eno"))
    assert "no whole archive" in refusal(file)  # by its checksum
    assert "SHA-256 differs" in refusal(_with(file, data, "a.txt", b"eno"))


def _with(file, original, name, content):
    file.write_bytes(original)
    return rewritten(file, lambda info, data: [(info, content if info.filename == name else data)])


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"format": 2, "members": {}}', "format 2"),
        (b'{"format": 1}', "cannot be read"),
        (b'{"format": 1, "members": {"a.txt": 3}}', "cannot be read"),
        (b'{"format": 1, "members": {}}', "not in both"),
        (b" " * ((1 << 20) + 1), "bytes, more than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_manifest_is_refused(file, manifest, words):
    assert re.search(words, refusal(_with(file, file.read_bytes(), "manifest.json", manifest)))


def test_another_zip_file_is_told_as_such(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photo.png", b"")
    assert "not written by `metarun pack`" in refusal(tmp_path / "other.zip")
    (tmp_path / "text").write_text(json.dumps({}))
    assert "no whole archive" in refusal(tmp_path / "text")
    assert "cannot be read: No such file" in refusal(tmp_path / "nowhere")
