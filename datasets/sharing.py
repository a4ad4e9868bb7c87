"""Let the members of a group share what the umask of one of them would keep from the others."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def share(path: Path) -> None:
    """Let the group write a file or a folder, if it may read it, and may write the folder around it.

    A setgid folder that the group may write is meant for that. Files of other users, and of a group other than the
    folder's, stay as they are.

    Args:
        path: the file or folder, which was made just now.
    """
    with suppress(OSError):  # it was moved meanwhile, or the disk has no permissions
        own, around = path.stat(), path.parent.stat()
        alike = own.st_uid == os.geteuid() and own.st_gid == around.st_gid
        mode = stat.S_IMODE(own.st_mode)
        if alike and around.st_mode & stat.S_IWGRP and mode & stat.S_IRGRP and not mode & stat.S_IWGRP:
            path.chmod(mode | stat.S_IWGRP)


def make_folder(path: Path) -> None:
    """Make a folder, and those around it that are missing, with `share`."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        share(path)
