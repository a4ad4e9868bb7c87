"""Downloads with checksums."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from . import cache

YES, NO = ("1", "true", "yes", "on", "y", "t"), ("", "0", "false", "no", "off", "n", "f")


def offline() -> bool:
    """Return whether METARUN_OFFLINE forbids downloads.

    Raises:
        DataError: Its value is neither a yes nor a no.
    """
    value = os.environ.get("METARUN_OFFLINE", "").strip()
    if value.lower() not in YES + NO:
        raise DataError(f"METARUN_OFFLINE is {value!r}: set it to 1 (download nothing) or to 0")
    return value.lower() in YES


def download(address: str, archives: Mapping[str, str], dataset: str = "omniglot") -> list[Path]:
    """Download archives into the cache and check them; good copies that are there stay.

    Args:
        address: The address below which the archives are.
        archives: File name -> md5, or "sha256:" and the SHA-256.
        dataset: The name with which `metarun data import` takes the user's own copy, for messages.

    Returns:
        The paths of the archives.

    Raises:
        DataError: The network or the disk fails, the run is offline, or a file has another checksum.
    """
    folder = cache.folder() / "downloads"
    import pooch
    import requests

    hashes = {name: ("md5", *each.split(":"))[-2:] for name, each in archives.items()}

    def good(name: str) -> bool:
        kind, value = hashes[name]
        return (folder / name).is_file() and pooch.file_hash(str(folder / name), kind) == value

    if offline() and (missing := [name for name in archives if not good(name)]):
        raise DataError(
            f"{folder} has no good copy of {', '.join(missing)} and this run is offline: `metarun data fetch` on a "
            "machine with internet and the same METARUN_CACHE"
        )
    pooch.get_logger().setLevel("ERROR")
    paths = []
    for name, (kind, value) in hashes.items():
        try:
            fetched = pooch.retrieve(
                address + name,
                known_hash=f"{kind}:{value}",
                fname=name,
                path=folder,
                progressbar=sys.stderr.isatty(),
            )
        except (requests.RequestException, OSError) as error:
            refused = isinstance(error, PermissionError)  # pooch's own error has no number
            if refused or error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EROFS,
            ):  # a network's has none
                raise DataError(cache.disk_message(error)) from None
            raise DataError(
                f"cannot download {address}{name} ({type(error).__name__}): on a machine without internet give "
                f"your own copy with `metarun data import {dataset} PATH...`"
            ) from None
        except ValueError:
            raise DataError(
                f"{address}{name} is not the official archive (its {kind} is not {value}): import a good copy with "
                f"`metarun data import {dataset} PATH...`"
            ) from None
        paths.append(Path(fetched))
    return paths
