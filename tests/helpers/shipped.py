"""The specs that ship."""

from metarun.experiments.config.load import load, shipped_specs

SHIPPED = {name: load(name).experiment for name in shipped_specs()}
