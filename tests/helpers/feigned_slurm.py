"""Commands that stand in for Slurm's: sbatch keeps its script and environment, squeue prints a file."""

import os
from pathlib import Path

import pytest

BEGIN = '#!/bin/bash\nscript=$(realpath "$1" 2>/dev/null)\ncd "$(dirname "$0")"\n'
COMMANDS = {
    "sbatch": """
        if [ -e refusal ] && [ $(ls | grep -c script) -ge $(cat taken) ]; then cat refusal >&2; exit 1; fi
        if [ -e answer ]; then cat answer; exit; fi
        number=$((100 + $(ls | grep -c script)))
        cat "$script" > script.$number
        env -0 > environment.$number
        echo "Submitted batch job $number"
    """,
    "squeue": """
        env -0 > asked
        for word in "$@"; do case $word in --name=*) names=,${word#--name=},; esac; done
        [ ! -e queue ] || awk -F'|' -v names="$names" 'index(names, "," $2 ",")' queue
    """,
    "scontrol": "",
    "scancel": 'echo "$@" >> cancelled',
    "srun": "",
}


class FeignedSlurm:
    """Feign the commands of Slurm in a folder, with what they were given."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in COMMANDS.items():
            command = folder / name
            command.write_text(BEGIN + text + "\ntrue\n")
            command.chmod(0o755)
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def refuse(self, *lines: str, after: int = 0) -> None:
        """Refuse all submissions with these lines, once so many have been taken."""
        (self.folder / "taken").write_text(f"{after}\n")
        (self.folder / "refusal").write_text("".join(f"{line}\n" for line in lines))

    def accept(self) -> None:
        """Take all further submissions."""
        (self.folder / "refusal").unlink()

    def queue(self, *jobs: str) -> None:
        """Set the lines of squeue: NUMBER|NAME|STATE|REASON."""
        (self.folder / "queue").write_text("".join(f"{job}\n" for job in jobs))

    def scripts(self) -> list[str]:
        """Return the scripts that sbatch has taken, in their order."""
        return [path.read_text() for path in sorted(self.folder.glob("script.*"))]

    def environments(self) -> list[set[str]]:
        """Return the names of the variables that sbatch had, for each of its scripts, then those of squeue."""
        files = [*sorted(self.folder.glob("environment.*")), *self.folder.glob("asked")]
        return [{entry.partition("=")[0] for entry in path.read_text().split("\0")} for path in files]
