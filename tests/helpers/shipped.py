"""The specs that ship."""

from metarun.experiments.config.load import load, shipped_specs

SHIPPED = {name: load(name).experiment for name in shipped_specs()}
ONE_OF_EACH = {(spec.algorithm.name, spec.dataset.name): name for name, spec in SHIPPED.items()}
