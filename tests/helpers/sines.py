"""A table of three cells that one small model fills."""

SPEC = """
name: sines
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [8]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 2, steps: 40}
validation: null
test: {way: 1, shot: 5, query: 5, episodes: 30}
published: {value: 3.0, source: a paper}
"""
TABLE = """
title: Sines
cells:
  - {name: k5, column: K = 5, method: MAML, spec: SPEC, published: {value: 3.0, source: a paper}}
  - {name: k10, column: K = 10, method: MAML, spec: SPEC, test: {shot: 10, query: 10}}
  - {name: k5-more, column: K = 5, method: MAML with more steps, spec: SPEC, test: {inner_steps: 3}}
"""


def write_table(folder):
    """Write the table beside its spec; return its path."""
    (folder / "sines.yaml").write_text(SPEC)
    path = folder / "paper.yaml"
    path.write_text(TABLE.replace("SPEC", str(folder / "sines.yaml")))
    return path
