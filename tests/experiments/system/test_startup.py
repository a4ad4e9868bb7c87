"""TensorFlow that cannot be imported says why; its other names are known."""

import os
import subprocess
import sys
from importlib import import_module

from metarun.experiments.system.startup import LIVES

plugins = import_module("metarun.datasets.plugins")  # `metarun.datasets` has a function of that name
WORDS = "This TensorFlow binary was compiled to use AVX instructions"


def imported(folder, module, code):
    """Return the process that trains where `import tensorflow` runs `module`."""
    (folder / "tensorflow.py").write_text(module)
    command = [sys.executable, "-m", "metarun.cli.main", "train", "quickstart/protonet", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == code, done.stderr
    assert LIVES.decode() not in done.stderr and "Traceback" not in done.stderr
    return done


def test_fault_25_last_words_of_an_import_that_aborts(tmp_path):
    aborts = f"import os\nos.write(2, b'page\\n' * 9000 + b'{WORDS}')\nos.abort()\n"
    done = imported(tmp_path, aborts, code=-6)
    assert WORDS in done.stderr and "the process ended while it imported TensorFlow" in done.stderr
    assert len(done.stderr) < 3000


def test_fault_25_an_import_that_fails_is_one_line(tmp_path):
    fails = "import os\nos.write(2, b'page\\n')\nraise ImportError('libcudart.so.12: cannot open shared object file')\n"
    done = imported(tmp_path, fails, code=1)
    assert done.stderr.startswith("error: TensorFlow cannot be imported (ImportError: libcudart.so.12: cannot open")
    assert done.stderr.count("\n") == 1


def test_fault_25_versions_under_another_name(monkeypatch):
    installed = {"tensorflow-cpu": "2.21.0", "pillow-simd": "9.5"}

    def version(name):
        if name not in installed:
            raise plugins.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(plugins, "version", version)
    modules = {"tensorflow": ["tensorflow-cpu", "tensorflow-cpu"], "PIL": ["pillow-simd"]}
    monkeypatch.setattr(plugins, "packages_distributions", lambda: modules)
    assert plugins.installed_version("tensorflow") == "2.21.0 (tensorflow-cpu)"
    assert plugins.installed_version("pillow") == "9.5 (pillow-simd)"
    assert plugins.installed_version("keras") == "unknown"
