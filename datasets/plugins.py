"""Datasets and algorithms of other packages, found by their entry points.

A package that has, in its pyproject.toml,

    [project.entry-points."metarun.datasets"]
    cartpoles = "their_package:CartPoles"

makes `dataset: {name: cartpoles}` a valid section. `CartPoles` is a subclass of `Options` with `name:
Literal["cartpoles"]` and a method `build(dtype)` that returns a `TaskSource` or a `TrialSource`. A spec only names what
is installed; it never names code.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path
from traceback import walk_tb
from typing import Any, get_args

from .errors import DataError, KnownError
from .options import Options

MODULES = {"pillow": "PIL"}  # package -> its module, where the names differ
CODE = (".py", ".so", ".pyd")  # ends of the files that a digest of source covers
OTHERS: dict[str, str] = {}  # module at the top of another package -> name and version of its distribution


def installed_version(package: str) -> str:
    """Return the version of an installed package, or "unknown".

    A package may be installed under another name, such as tensorflow-cpu or tf-nightly, which then follows the version.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        others = dict.fromkeys(packages_distributions().get(MODULES.get(package, package), ()))
        return ", ".join(f"{version(other)} ({other})" for other in others) or "unknown"


def plugins(group: str, taken: Collection[str], problem: Callable[[str, Any], str | None]) -> dict[str, Any]:
    """Return the objects that the entry points of a group load, by name.

    An invalid one is left out with a warning on standard error, so that it does not affect other experiments.

    Args:
        group: The group of entry points, such as "metarun.datasets".
        taken: The names that are already in use.
        problem: Maps a name and a loaded object to what is wrong with it, or to None.
    """
    found: dict[str, Any] = {}
    for point in entry_points(group=group):
        wrong, loaded = _load(point)
        if wrong is None and (point.name in taken or point.name in found):
            wrong = "the name is taken"
        if wrong := wrong or problem(point.name, loaded):
            package = point.dist.name if point.dist else "a package"
            print(f"warning: {group} {point.name} of {package} ({point.value}) is left out: {wrong}", file=sys.stderr)
        else:
            found[point.name] = loaded
            OTHERS[_top(point.value)] = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown unknown"
    return found


def _load(point: EntryPoint) -> tuple[str | None, Any]:
    try:
        return None, point.load()
    except Exception as error:  # of any kind: it is someone else's code
        if isinstance(error, KnownError) and not isinstance(error, DataError):
            raise  # such as a request to stop
        return f"{type(error).__name__}: {error}", None


def misnamed(name: str, options: type[Options]) -> str | None:
    """Return what is wrong with the options behind the entry point `name`, or with their `name`; None if nothing is."""
    if not (isinstance(options, type) and issubclass(options, Options)):
        return "its options are not a subclass of metarun.datasets.options.Options"
    field = options.model_fields.get("name")
    if field is None or field.default != name or get_args(field.annotation) != (name,):
        return f'its options lack `name: Literal["{name}"] = "{name}"`'
    return None


def package_of(options: Any) -> str:
    """Return the package that options come from as "name version digest of its source"; "" for metarun's own."""
    top = _top(type(options).__module__)
    return f"{OTHERS[top]} {source_digest(top)}" if top in OTHERS else ""


@cache  # the code that this process has loaded, whatever becomes of the files
def source_digest(top: str) -> str:
    """Return 16 hexadecimal digits of a hash of the code of a package or module, or "unknown" if it is in no file.

    Args:
        top: The name of the package or module, which is imported.
    """
    module = sys.modules.get(top)
    folders = [Path(path) for path in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    files = [(path.relative_to(folder), path) for folder in folders for path in _code(folder)]
    if not folders and file:
        files = [(Path(Path(file).name), Path(file))]
    digest = hashlib.sha256()
    try:
        for name, path in sorted(files):
            data = path.read_bytes()
            digest.update(f"{name.as_posix()} {len(data)} ".encode() + data)
    except OSError:
        return "unknown"
    return digest.hexdigest()[:16] if files else "unknown"


def _code(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix in CODE and path.is_file())


def _top(name: str) -> str:
    """Return the outermost package of a module, or of an entry point such as package.module:name."""
    return name.partition(":")[0].partition(".")[0].strip()


def to_blame(error: BaseException) -> str | None:
    """Return name and version of the other package whose code raised the error, or called what did; None if none."""
    if error.__traceback__ is None:
        return None
    for frame, _ in walk_tb(error.__traceback__):
        if package := OTHERS.get(_top(frame.f_globals.get("__name__", ""))):
            return package
    return None
