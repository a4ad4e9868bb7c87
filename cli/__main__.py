"""The first lines of the command `metarun`: signals are noted from here on, before anything else is imported."""

from __future__ import annotations

from ..experiments.system.signals import begin
from ..experiments.system.streams import open_closed


def main() -> None:
    """Run the command line and exit, as `main.main`."""
    open_closed()
    begin()
    from .main import main

    main()


if __name__ == "__main__":
    main()
