"""Packages of other people, installed as far as their entry points and modules go."""

import tomllib
from pathlib import Path

from command import metarun


def install(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> Path:
    """Write the modules and the entry points of a package below `folder`, which then goes on PYTHONPATH."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
    for path, text in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def install_project(folder: Path, project: Path) -> Path:
    """Write the modules below the folder of a project, and the entry points of its pyproject.toml."""
    read = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    lines = []
    for group, entries in read["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    modules = {str(path.relative_to(project)): path.read_text() for path in project.rglob("*.py")}
    return install(folder, read["name"], "\n".join(lines), modules)


def run_with(installed: Path, *arguments: object, cwd: Path, code: int = 0):
    """Run the command line with what is installed in that folder; return the completed process."""
    return metarun(*arguments, code=code, cwd=cwd, PYTHONPATH=str(installed))
