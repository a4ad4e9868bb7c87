"""Write and read archives: a zip file with a manifest, of equal bytes for equal content, which may come from strangers.

Members are stored, not compressed: the bytes depend on no version of zlib, and no archive can grow when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError
from .atomic import write_bytes_atomic

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 20
MOST_MEMBERS = 2000
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member, the earliest of a zip file


def write(path: Path, members: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """Write an archive: the manifest, then the members by name.

    Args:
        path: the file, which is written whole or not at all.
        members: the content of each member by its name.
        about: values of the manifest, beside the format and the size and SHA-256 of each member.
    """
    listed = {
        name: {"bytes": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
        for name in sorted(members)
    }
    manifest = json.dumps({"format": FORMAT, **about, "members": listed}, indent=2) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [(MANIFEST, manifest.encode()), *((name, members[name]) for name in listed)]:
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # of Unix, wherever it is written
            archive.writestr(info, data)
    write_bytes_atomic(path, buffer.getvalue())


def read(path: Path, known: re.Pattern[str], wanted: re.Pattern[str] | None = None) -> dict[str, bytes]:
    """Return the members of an archive by name, without its manifest.

    The directory of the archive and the manifest are checked whole, and the size and digest of each member that is
    returned.

    Args:
        path: the file.
        known: pattern of the names that members may have.
        wanted: pattern of the names of the members to return; by default all are.

    Raises:
        RunError: the file is no archive of this format, is damaged, or has members that `write` would not write.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            if MANIFEST not in infos:
                raise RunError(f"{path} has no {MANIFEST}: it was not written by `metarun pack`")
            _refuse_strange(path, archive.infolist(), known)
            listed = _manifest(path, archive.read(infos[MANIFEST]))
            if listed.keys() != infos.keys() - {MANIFEST}:
                other = sorted(listed.keys() ^ (infos.keys() - {MANIFEST}))[0]
                raise RunError(f"{path}: {other!r} is in the manifest or in the archive, and not in both")
            chosen = [name for name in sorted(listed) if wanted is None or wanted.fullmatch(name)]
            members = {name: archive.read(infos[name]) for name in chosen}
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is no whole archive of `metarun pack` ({error})") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    for name, data in members.items():
        if (len(data), hashlib.sha256(data).hexdigest()) != listed[name]:
            raise RunError(f"{path}: {name} is not the file that was packed (its SHA-256 differs from the manifest)")
    return members


def _refuse_strange(path: Path, infos: list[zipfile.ZipInfo], known: re.Pattern[str]) -> None:
    """Raise RunError for members that `write` would not write, before any of them is read."""
    if len(infos) > MOST_MEMBERS:
        raise RunError(f"{path} has {len(infos)} members: `metarun pack` writes at most {MOST_MEMBERS}")
    seen: set[str] = set()
    for info in infos:
        name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
        if name in seen:
            raise RunError(f"{path} has the member {name!r} twice")
        seen.add(name)
        if name != info.orig_filename or not (name == MANIFEST or known.fullmatch(name)):
            raise RunError(f"{path} has the member {info.orig_filename!r}, which `metarun pack` does not write")
        if kind not in (0, stat.S_IFREG) or info.is_dir():
            raise RunError(f"{path}: {name} is no plain file")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise RunError(f"{path}: {name} is compressed or encrypted, which `metarun pack` never does")
        if name == MANIFEST and info.file_size > MANIFEST_BYTES:
            raise RunError(f"{path}: {name} has {info.file_size} bytes, more than {MANIFEST_BYTES}")
    if (total := sum(info.file_size for info in infos)) > path.stat().st_size:
        raise RunError(f"{path}: its members have {total} bytes together, more than the file")


def _manifest(path: Path, text: bytes) -> dict[str, tuple[int, str]]:
    """Return the size and the SHA-256 of each member that a manifest names."""
    try:
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise RunError(
                f"{path} is an archive of format {manifest['format']!r}, this version reads {FORMAT}: update metarun"
            )
        return {str(name): (each["bytes"], each["sha256"]) for name, each in manifest["members"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: its {MANIFEST} cannot be read ({type(error).__name__})") from None
