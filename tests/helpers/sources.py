"""The source files of the package."""

from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("datasets", "algorithms", "experiments", "cli")
SCRIPTS = ROOT / "experiments/results"  # they use the installed package


def dotted(path: Path) -> str:
    """Return the name of a module below metarun."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, str]:
    """Return the source of every module of the package, by its dotted name below metarun."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if SCRIPTS not in path.parents]
    return {dotted(path): text for path in sorted(paths) if (text := path.read_text()) or path.name != "__init__.py"}
