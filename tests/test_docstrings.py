"""Docstrings: every public name has one, it says what it is or what it does, and examples in them run.

Tests, benchmarks and scripts need none; those that they have keep the same rules. The docstring of a test says what it
does (Read, Compare) or names the wrong variant that it rejects (Reject). A class says what it is for (Hold, Sample).
"""

import ast
import functools
import re
import textwrap

import pytest
from sources import ROOT, dotted, modules

OUTSIDE = {
    dotted(path): path.read_text()
    for folder in ("tests", "benchmarks", "experiments/results")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
EXAMPLES = (
    ("algorithms/maml.py", "maml"),
    ("algorithms/__init__.py", "Algorithm"),
    ("datasets/images/source.py", "ImageSource"),
    ("datasets/gymnasium.py", "GymnasiumSource"),
)

# The docstring of a function or a class begins with one of these.
VERBS = (
    "Accept Act Adapt Add Align Append Apply Ask Assign Average Balance Begin Build Call Cancel Change Check Choose "
    "Classify Clear Close Collect Combine Compare Compile Complete Compute Connect Continue Convert Copy Count Create "
    "Cut Decode Defer Define Delete Describe Divide Download Draw Drop Encode End Ensure Evaluate Explain Export "
    "Feign Fetch Fill Find Finish Follow Format Forward Free Give Go Group Hide Hold Ignore Import Initialise "
    "Interrupt Invoke Join Keep Label Lack Learn Leave Let Limit List Load Lock Log Make Map Mark Mask Measure Merge "
    "Move Name Normalise Obey Open Pack Parse Pass Pivot Plan Play Plot Prepare Print Pull Put Raise Read Recognise "
    "Record Reduce Refuse Register Reject Release Remove Rename Render Repeat Replace Report Reproduce Resize Resolve "
    "Resume Retry Return Rotate Run Sample Save Say Scale Search Select Send Set Share Show Sort Split Start Step "
    "Stop Store Submit Sum Switch Take Tell Test Touch Trace Train Try Tune Turn Unpack Update Use Validate Verify "
    "Wait Walk Warn Watch Wrap Write Yield"
)
# No docstring begins with one of these: the noun is named, not implied.
VAGUE = (
    "About After All Also As At Because Before Behind Below Besides Between But By During Each Everything For From "
    "How If In Inside Into Its Like Of On Once One Or Out Outside Over Per See So Than That Their There These They "
    "This Those To Under Until What When Where Whether Which While Who Whose Why With Within Without"
)


def definitions(node: ast.AST, prefix: str = "", public: bool = True, derived: bool = False):
    """Yield every module, class and function: its name, whether that is public, and whether its class has bases."""
    yield node, prefix or "the module", public, derived
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.ClassDef | ast.FunctionDef):
            seen = public and not each.name.startswith("_") and not isinstance(node, ast.FunctionDef)
            inherits = isinstance(node, ast.ClassDef) and bool(node.bases)
            yield from definitions(each, f"{prefix}.{each.name}".lstrip("."), seen, inherits)


@functools.cache
def documented_methods() -> set[str]:
    """Return the names of all methods that have a docstring in some class; a method that overrides one needs none."""
    return {
        name.rpartition(".")[2]
        for source in modules().values()
        for node, name, _, _ in definitions(ast.parse(source))
        if "." in name and ast.get_docstring(node)
    }


def mistakes(source: str, outside: bool = False) -> list[str]:
    """Return what is wrong with the docstrings of a module of the package, or of one outside it."""
    found = []
    for node, name, public, derived in definitions(ast.parse(source)):
        text, last = ast.get_docstring(node), name.rpartition(".")[2]
        if text is None:
            needed = public and not outside and not (derived and last in documented_methods())
            found += [f"{name} has no docstring"] * needed
            continue
        first = re.split(r"[\s,.:;]", text.strip("` "), maxsplit=1)[0]
        if first in VAGUE.split():
            found.append(f"{name}: {first!r} names nothing: {text.splitlines()[0]}")
        elif not isinstance(node, ast.Module) and first not in VERBS.split():
            found.append(f"{name}: {first!r} is not a verb in VERBS: {text.splitlines()[0]}")
    return found


@pytest.mark.parametrize("name", [*modules(), *OUTSIDE])
def test_docstrings(name):
    assert mistakes((modules() | OUTSIDE)[name], name in OUTSIDE) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""A module."""\ndef f():\n    """Return 1."""', 0),
        ("def f():\n    pass", 2),
        ('"""About everything."""', 1),
        ('"""What a user may say."""', 1),
        ('"""A module."""\ndef f():\n    """Whether it is."""', 1),
        ('"""A module."""\ndef f():\n    """Returns 1."""', 1),
        ('"""A module."""\ndef f():\n    """The number of f."""', 1),
        ('"""A module."""\nclass A:\n    """With b."""\n    def f(self): ...', 2),
        ('"""A module."""\ndef _f(): ...\nclass A:\n    """Hold a."""\n    def __init__(self): ...', 0),
        ('"""A module."""\ndef _f():\n    """By b."""', 1),
        ('"""A module."""\nclass A:\n    """An a."""', 1),
        (
            '"""A module."""\nclass A(B):\n    """Keep."""\n    def evaluate(self): ...\n    def unheard_of(self): ...',
            1,
        ),
        ('"""A module."""\nclass A:\n    """Hold a."""\n    def evaluate(self): ...', 1),
    ],
)
def test_what_counts_as_a_mistake(source, count):
    """Reject a rule that overlooks one of these, or that asks for docstrings of private names."""
    assert len(mistakes(source)) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(): ...\nclass A: ...", 0),
        ('def f():\n    """The number of f."""', 1),
        ('class A:\n    def f(self):\n        """The number of f."""', 1),
        ('def test_f():\n    """The number of f is 1."""\ndef test_g():\n    """Reject 2."""', 1),
        ('def test_f():\n    """With b, too."""', 1),
        ('"""What tests share."""', 1),
    ],
)
def test_what_counts_as_a_mistake_outside_the_package(source, count):
    assert len(mistakes(source, outside=True)) == count


@pytest.mark.parametrize(("path", "name"), EXAMPLES)
def test_examples_run(path, name):
    if path.endswith("gymnasium.py"):
        pytest.importorskip("gymnasium")
    tree = ast.parse((ROOT / path).read_text())
    (text,) = [ast.get_docstring(node) for node, each, _, _ in definitions(tree) if each == name]
    before_the_lists = re.split(r"^\w+:$", text or "", flags=re.MULTILINE)[0]
    code = textwrap.dedent("".join(re.findall(r"^(?: {4}.*)?\n", before_the_lists, flags=re.MULTILINE)))
    assert "import" in code
    exec(compile(code, path, "exec"), {})
