"""SavedModels called in a process that has TensorFlow and no metarun, as TensorFlow Serving calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = """
import json, sys

class NoMetarun:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "metarun":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoMetarun())
import numpy as np
import tensorflow as tf

def serve(signature, body):  # JSON in, as TensorFlow Serving's REST API reads it
    specs = signature.structured_input_signature[1]
    columns = body.get("inputs")
    if columns is None and len(specs) == 1 and not isinstance(body["instances"][0], dict):
        columns = {name: body["instances"] for name in specs}
    elif columns is None:
        columns = {name: [row[name] for row in body["instances"]] for name in specs}
    return signature(**{name: tf.constant(columns[name], spec.dtype) for name, spec in specs.items()})

folder = sys.argv[1]
models = {}
for place, (model, name, body) in enumerate(json.load(open(f"{folder}/calls.json"))):
    models[model] = models.get(model) or tf.saved_model.load(model)
    signature = models[model].signatures[name]
    try:
        answers = serve(signature, body)
    except tf.errors.InvalidArgumentError as error:
        answers = {"error": np.array(str(error))}
    answers = {key: np.array(value) for key, value in answers.items()}
    texts = {key: [text.decode() for text in value] for key, value in answers.items() if value.dtype == object}
    np.savez(f"{folder}/{place}.npz", **(answers | texts))
assert not any(name.partition(".")[0] == "metarun" for name in sys.modules)
"""


def call(folder: Path, *calls: tuple[Path, str, dict]) -> list[dict[str, np.ndarray]]:
    """Return the outputs of calls of SavedModels, by name, from one process; "error" has the message of a refusal.

    Args:
        folder: An empty folder for the files of the calls.
        calls: The folder of a SavedModel, the signature, and the body of a request to TensorFlow Serving.
    """
    folder.mkdir(parents=True)
    told = [(str(model), name, body) for model, name, body in calls]
    (folder / "calls.json").write_text(json.dumps(told))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"{place}.npz")) for place in range(len(calls))]
