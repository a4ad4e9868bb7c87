"""Packages of other people, installed as far as their entry points and modules go."""

import os
import subprocess
import sys
from pathlib import Path


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


def run_with(installed: Path, *arguments: object, cwd: Path, module: str = "metarun.cli.main"):
    """Run the command line, or the module, with what is installed in that folder; the completed process."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=cwd)
