"""Verified downloads."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from . import cache
from .errors import DataError


def download(address: str, archives: Mapping[str, str]) -> list[Path]:
    """Fetch `archives` (file name -> md5) from below `address` into the cache, checked; files that are there stay.

    DataError where there is no network, or where what came is not what was asked for.
    """
    folder = cache.folder() / "downloads"
    missing = [name for name in archives if not (folder / name).is_file()]
    if missing and os.environ.get("METARUN_OFFLINE"):
        raise DataError(
            f"{folder} lacks {', '.join(missing)} and this run is offline: `metarun data fetch` on a machine "
            "with internet and the same METARUN_CACHE"
        )
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    paths = []
    for name, md5 in archives.items():
        try:
            fetched = pooch.retrieve(
                address + name,
                known_hash=f"md5:{md5}",
                fname=name,
                path=folder,
                progressbar=sys.stderr.isatty(),
            )
        except (requests.RequestException, OSError) as error:
            if error.errno in (errno.ENOSPC, errno.EACCES):  # those of the network have none of these
                raise DataError(cache.disk_message(error)) from None
            raise DataError(
                f"cannot download {address}{name} ({type(error).__name__}): on a machine without internet give "
                f"your own copy with `metarun data import omniglot PATH...`"
            ) from None
        except ValueError:
            raise DataError(
                f"{address}{name} is not the official archive (its md5 is not {md5}): import a good copy with "
                "`metarun data import omniglot PATH...`"
            ) from None
        paths.append(Path(fetched))
    return paths
