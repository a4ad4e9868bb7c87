"""Small runs on a folder of images, and images that tests write."""

import numpy as np
from PIL import Image

SPEC = """
name: {name}
algorithm: {{name: {name}{more}}}
network: {{name: mlp, hidden: [8], batch_norm: true}}
dataset: {{name: imagefolder, path: {path}, image_size: 8, channels: 1}}
protocol: {protocol}
train: {{way: 3, shot: 2, meta_batch: 2, steps: 2{query}}}
validation: null
test: {{way: 3, shot: 2, query: 3, episodes: 4, checkpoint: last}}
jit: off
"""
MORE = {  # of the algorithm, and its protocol
    "protonet": ("", "inductive"),
    "matchingnet": (", temperature: 0.2", "inductive"),
    "maml": (", inner_lr: 0.5, inner_steps: 2", "transductive"),
    "reptile": (", inner_lr: 0.02, inner_steps: 3, inner_batch: 4", "inductive"),
}


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
