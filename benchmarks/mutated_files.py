"""Files that are almost right, for `mutations.py`: the files, the changes, and the case of a seed and a number."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from metarun.experiments.config.load import shipped_specs
from metarun.experiments.papers.definition import shipped_tables

MINE = """
name: mine
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 5, shot: 1, query: 5, steps: 20}
validation: {episodes: 10, every: 10}
test: {episodes: 20}
seeds: [0, 1, 2]
published: {value: 50, source: nobody}
cluster: {gpus: 1, time: 60, setup: [module load cuda], slurm: {qos: low}}
"""
CHILD = "extends: base.yaml\nname: child\ntrain: {steps: 30}\nvalidation: null\n"
TABLE = """
title: Mine
cells:
  - {name: one, column: K = 1, method: M, spec: base.yaml, published: {value: 3.0, source: a paper}}
  - {name: two, column: K = 5, method: M, spec: base.yaml, test: {shot: 2, query: 5}}
  - {name: more, column: K = 1, method: N, spec: base.yaml, overrides: [name=more, train.steps=30]}
"""
CROSSED = """
title: Sines of two sizes
source: a paper
specs: base.yaml
runs: mine-{cell}
columns: {k1: K = 1, k2: K = 2}
methods: {maml: MAML, more: More steps}
overrides: {"k2-*": [train.shot=2], "*-more": [train.steps=80]}
published: {maml: [40, null]}
"""
PART = "title: A part\npart_of: whole.yaml\ncolumns: [K = 5]\noverrides: {two: [name=short, train.steps=20]}\n"
CLUSTER = """
partition: gpu
account: vision
time: 4:00:00
cpus: 8
memory: 16G
max_parallel: 50
signal: USR2@90
setup: [module load cuda]
slurm: {qos: low, exclusive: true}
"""
OWN = {"spec": [MINE, CHILD], "table": [TABLE, CROSSED, PART], "cluster": [CLUSTER]}
BESIDE = {"base.yaml": MINE.replace("name: mine", "name: base", 1), "whole.yaml": TABLE}  # files that others name
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**6, 10**30, 10**4000),
    *(1.5, -0.0, 1e308, 1e-308, "1e999", float("nan"), float("inf")),
    *("", " ", "null", "~", "x", "0x1f", "1_000", "1e3", "2020-01-01", "on"),
    *("a: b", "{a}", "[", "*", "&", "%", "@", "`", "a\nb", "\t", "x" * 3000),
    *("ümlaut", "Ελληνικά", "数字", "١٢", "🎲", "\u202eabc", "e\u0301", "\ufeff", "\0", "\x85", "\u2028"),
    *("../..", "/", "/dev/zero", "/proc/self/environ", "~nobody", ".", "C:\\x", "a\0b", "nothing.yaml", "base.yaml"),
    *([], {}, [[]], [1, "a", None], {"a": {"b": {}}}, {"name": "x"}, {"": 0}, {1: 2}, [{}] * 50, list(range(3000))),
)  # fmt: skip
SNIPPETS = (
    *("!!python/object/apply:os.system [true]", "!!binary aGFsbG8=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp x"),
    *(
        "!!int ''",
        "!!float x",
        "!!bool 7",
        "!!null x",
        "!!str 1",
        "!!merge x",
        "!unknown x",
        "!<tag:x,2000:y> z",
        "! x",
    ),
    *(
        "&a [*a]",
        "*nothing",
        "&a {b: &a c}",
        "? [a, b] : c",
        "<<: {x: 1}",
        "---",
        "...",
        "%YAML 3.0",
        "%TAG ! tag:x,2000:",
    ),
    *(
        "|\n  text",
        ">-\n  text",
        "'",
        '"',
        '"\\x',
        '"\\uD800"',
        '"\\UFFFFFFFF"',
        "# note",
        "- a\n- b",
        "\t- a",
        "@a",
        "`a",
    ),
    *(
        "[" * 60,
        "{a: " * 60,
        "[" * 3000,
        "- " * 200,
        "a: " * 30,
        "0" * 5000,
        "9" * 5000,
        "1" * 400 + "e5",
        "0o17",
        "0b1",
    ),
)
OTHERS = ("file.yaml", "./file.yaml", "base.yaml", "whole.yaml", "quickstart/maml", "..", "[a]")  # to extend
TEXTS = "\t\n\r :#-?[]{},&*!|>'\"%@`~\\\0\x85\u2028\ufeff\ud800é漢🎲"
Tree = dict[str, Any]


class Case(NamedTuple):
    """Hold the files of a case, and how they are used."""

    kind: str  # spec, table or cluster
    content: bytes  # of the file that is checked
    beside: dict[str, str]  # other files -> their text
    overrides: tuple[str, ...]


def case(seed: int, number: int) -> Case:
    """Return case `number`."""
    chance = random.Random(f"{seed}/{number}")
    kind = chance.choices(list(OWN), [6, 4, 2])[0]
    shipped = [*(shipped_specs() if kind == "spec" else shipped_tables() if kind == "table" else {}).values()]
    own = chance.choice(OWN[kind])
    text = chance.choice(shipped).read_text(encoding="utf-8") if shipped and chance.random() < 0.4 else own
    for _ in range(chance.choices((1, 2, 3, 4), (6, 3, 2, 1))[0]):
        text = chance.choice((_tree, _tree, _tree, _text))(text, chance)
    content = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.08:
        content = chance.choice(BYTES)(content, chance)
    beside = dict(BESIDE)
    if chance.random() < 0.15:
        name = chance.choice(list(beside))
        beside[name] = _tree(beside[name], chance)
    if chance.random() < 0.05:
        beside["base.yaml"] += f"extends: {chance.choice(OTHERS)}\n"
    given = kind == "spec" and chance.random() < 0.3
    overrides = tuple(_override(chance) for _ in range(chance.randint(1, 3))) if given else ()
    return Case(kind, content, beside, overrides)


def _tree(text: str, chance: random.Random) -> str:
    """Change the data of a YAML text in one place; the text itself if it is no mapping any more."""
    try:
        values = yaml.safe_load(text)
    except Exception:  # PyYAML has many for odd texts
        return _text(text, chance)
    if not isinstance(values, dict) or not values:
        return _text(text, chance)
    inner = [each for each in _containers(values) if each]
    chance.choice(CHANGES)(chance.choice(inner), values, chance)
    try:
        return yaml.safe_dump(
            values, sort_keys=False, allow_unicode=True, default_flow_style=chance.choice((None, False))
        )
    except (yaml.YAMLError, ValueError, RecursionError):  # of a value that YAML cannot hold
        return text


def _containers(values: Any) -> list[Any]:
    """Return all lists and mappings in a tree, which may contain itself."""
    found, left = {}, [values]
    while left:
        each = left.pop()
        if isinstance(each, dict | list) and id(each) not in found:
            found[id(each)] = each
            left += each.values() if isinstance(each, dict) else each
    return list(found.values())


def _key(where: Any, chance: random.Random) -> Any:
    return chance.choice(list(where)) if isinstance(where, dict) else chance.randrange(len(where))


def _delete(where: Any, whole: Tree, chance: random.Random) -> None:
    del where[_key(where, chance)]


def _replace(where: Any, whole: Tree, chance: random.Random) -> None:
    where[_key(where, chance)] = chance.choice(VALUES)


def _misspell(where: Any, whole: Tree, chance: random.Random) -> None:
    key = _key(where, chance)
    if isinstance(where, dict):
        where[_typo(str(key), chance)] = where.pop(key)
    elif isinstance(where[key], str):
        where[key] = _typo(where[key], chance)


def _misspell_value(where: Any, whole: Tree, chance: random.Random) -> None:
    key = _key(where, chance)
    where[key] = _typo(str(where[key]), chance) if not isinstance(where[key], dict | list) else [where[key]]


def _typo(word: str, chance: random.Random) -> str:
    place = chance.randrange(len(word) + 1)
    letter = chance.choice("aeinrst_-.0é" + TEXTS[:6])
    return chance.choice(
        (word[:place] + word[place + 1 :], word[:place] + letter + word[place:], word.upper(), word + "s")
    )


def _nest(where: Any, whole: Tree, chance: random.Random) -> None:
    key = _key(where, chance)
    for _ in range(chance.choice((1, 2, 40, 300))):
        where[key] = chance.choice(([where[key]], {"name": where[key]}))


def _move(where: Any, whole: Tree, chance: random.Random) -> None:
    """Copy a value, with its key, to another place."""
    other = chance.choice([each for each in _containers(whole) if isinstance(each, dict)])
    key = _key(where, chance)
    other[key if isinstance(key, str) else "name"] = yaml.safe_load(yaml.safe_dump(where[key]))


def _add(where: Any, whole: Tree, chance: random.Random) -> None:
    value = chance.choice(VALUES)
    if isinstance(where, dict):
        where[chance.choice(KEYS)] = value
    else:
        where.insert(0, value)


def _scale(where: Any, whole: Tree, chance: random.Random) -> None:
    """Change the numbers of a list or mapping in a way that is often allowed."""
    for key in where if isinstance(where, dict) else range(len(where)):
        if isinstance(where[key], int | float) and not isinstance(where[key], bool) and chance.random() < 0.5:
            where[key] *= chance.choice((0, -1, 2, 1000, 10**12, 0.5))


CHANGES: tuple[Callable[[Any, Tree, random.Random], None], ...] = (
    *(
        _delete,
        _replace,
        _replace,
        _replace,
        _misspell,
        _misspell,
        _misspell_value,
        _nest,
        _move,
        _add,
        _scale,
        _scale,
        _scale,
    ),
)
KEYS = (
    *(
        "name",
        "extends",
        "algorithm",
        "network",
        "dataset",
        "protocol",
        "train",
        "test",
        "validation",
        "seeds",
        "cluster",
    ),
    *(
        "way",
        "shot",
        "query",
        "steps",
        "split",
        "path",
        "inner_steps",
        "title",
        "cells",
        "part_of",
        "overrides",
        "methods",
    ),
    *("published", "slurm", "setup", "spec", "variant", "", "__class__", "model_config", "<<", "名"),
)


def _text(text: str, chance: random.Random) -> str:
    """Change the letters of a YAML text in one place."""
    lines = text.split("\n")
    place, line = chance.randrange(len(text) + 1), chance.randrange(len(lines))
    changed = list(lines)
    changed[line] = f"{lines[line].partition(':')[0]}: {chance.choice(SNIPPETS)}"
    return chance.choice(
        (
            text[:place],
            text[:place] + chance.choice(TEXTS) + text[place:],
            text[:place] + text[place + 1 :],
            text[:place] + chance.choice(SNIPPETS) + text[place:],
            "\n".join(changed),
            "\n".join(changed),
            "\n".join([*lines, lines[line]]),  # a key twice
            "\n".join([*lines[:line], " " + lines[line], *lines[line + 1 :]]),
            f"{text}\nextends: {chance.choice(OTHERS)}\n",
            chance.choice(SNIPPETS) + "\n" + text,
        )
    )


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda content, chance: content[: chance.randrange(len(content) + 1)],
    lambda content, chance: content.decode("utf-8", "replace").encode("utf-16"),
    lambda content, chance: content.replace(b"\n", b"\r\n"),
    lambda content, chance: b"\xef\xbb\xbf" + content,
    lambda content, chance: content + chance.randbytes(5),
    lambda content, chance: b"",
    lambda content, chance: content * 40,
    lambda content, chance: content + b"# " + b"x" * 200_000,
)


def _override(chance: random.Random) -> str:
    key = ".".join(chance.choice(KEYS) for _ in range(chance.randint(1, 3)))
    value = chance.choice((chance.choice(SNIPPETS), str(chance.choice(VALUES)), "1", "1,2", "null"))
    return chance.choice((f"{key}={value}", f"{key}={value}", key, f"={value}"))
