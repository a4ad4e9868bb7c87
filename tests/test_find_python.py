"""`make` finds a supported Python on the PATH, in pyenv's folder and in uv's, and names it."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "find_python.sh"


@pytest.fixture
def install(tmp_path):
    """Return a function that makes a program which reports the version of a Python."""

    def install(path: str, version: str) -> Path:
        program = tmp_path / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
        return program

    return install


@pytest.fixture
def find(tmp_path):
    """Return a function that runs the script with a home and a PATH of its own."""

    def find(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin")}
        return subprocess.run(["/bin/sh", SCRIPT, *names], capture_output=True, text=True, env=own | environment)

    return find


UNSUPPORTED = ("3.10", "3.14", "2.7")
FOLDERS = ("bin", "home/.pyenv/versions/3.12.1/bin", "home/.local/share/uv/python/cpython-3.12-linux/bin")


def test_python3_is_taken_if_it_is_supported(install, find):
    """Reject the newest, which is not what `python3` means to the user."""
    python3 = install("bin/python3", "3.11")
    install("bin/python3.13", "3.13")
    found = find()
    assert found.returncode == 0 and found.stdout == f"{python3}\n"
    assert found.stderr == f"using Python 3.11: {python3}\n"


@pytest.mark.parametrize("version", UNSUPPORTED)
@pytest.mark.parametrize("folder", FOLDERS)
def test_another_python_is_found_if_python3_is_not_supported(install, find, version, folder):
    install("bin/python3", version)
    python = install(f"{folder}/python3.12", "3.12")
    found = find()
    assert found.stdout == f"{python}\n" and found.stderr == f"using Python 3.12: {python}\n"


def test_the_newest_is_taken(install, find):
    """Reject the first one of the PATH, or one that does not run, as pyenv's shims of versions not chosen."""
    install("bin/python3.11", "3.11")
    install("bin/python3.13", "").write_text("#!/bin/sh\nexit 127\n")
    python = install(f"{FOLDERS[1]}/python3.12", "3.12")
    assert find().stdout == f"{python}\n"


def test_folders_of_pyenv_and_uv_that_are_elsewhere(install, find, tmp_path):
    python = install("elsewhere/versions/3.13.0/bin/python3.13", "3.13")
    assert find(PYENV_ROOT=str(tmp_path / "elsewhere")).stdout == f"{python}\n"
    python = install("other/cpython-3.13-linux/bin/python3.13", "3.13")
    assert find(UV_PYTHON_INSTALL_DIR=str(tmp_path / "other")).stdout == f"{python}\n"


def test_a_named_python_is_taken_before_all_others(install, find):
    install("bin/python3", "3.13")
    python = install(f"{FOLDERS[1]}/python3.12", "3.12")
    assert find("python3.12").stdout == find(str(python)).stdout == f"{python}\n"


def test_nothing_found_is_one_line_that_says_what_to_install(install, find):
    install("bin/python3", "3.14")
    named = install("bin/python3.10", "3.10")
    for found in (find(), find(str(named))):
        assert found.returncode == 1 and found.stdout == "" and found.stderr.count("\n") == 1
        assert "3.11, 3.12 or 3.13" in found.stderr and "uv python install 3.13" in found.stderr


def test_make_uses_what_was_found(tmp_path):
    """Check that the program is used also where no `python3` is on the PATH of make."""
    program = tmp_path / "python 3"  # a path may have a space
    program.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.12 || echo "made with: $*"\n')
    program.chmod(0o755)
    makefile = SCRIPT.parent / "Makefile"
    command = ["make", "-f", str(makefile), ".venv/bin/pip", f"PYTHON={program}"]
    (tmp_path / "find_python.sh").symlink_to(SCRIPT)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert f"using Python 3.12: {program}" in done.stderr and "made with: -m venv .venv" in done.stdout
