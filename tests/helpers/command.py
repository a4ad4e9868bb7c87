"""The command line, as a process of its own and within this one."""

import os
import subprocess
import sys

from click.testing import CliRunner

from metarun.cli.main import metarun as group


def metarun(*arguments, code=0, cwd=None, **environment):
    command = [sys.executable, "-m", "metarun.cli.main", *map(str, arguments)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd, env=environment)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def reproduce(*arguments, code=0):
    done = CliRunner().invoke(group, ["reproduce", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done
