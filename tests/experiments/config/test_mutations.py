"""Mutated specs, tables and cluster files are refused with clear lines: a part of `benchmarks/mutations.py`."""

import pytest
from sources import ROOT

from metarun.experiments.errors import SpecError

CASES = [(0, 60), pytest.param(1, 2000, marks=pytest.mark.slow)]


@pytest.fixture
def mutations(script, monkeypatch, cache_folder):
    for name in ("METARUN_CLUSTER", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "")  # and back afterwards, since the script changes them
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return script("benchmarks/mutations.py")


@pytest.mark.parametrize(("seed", "count"), CASES)
def test_fault_31_no_mutated_file_ends_in_a_traceback(mutations, seed, count):
    failures = []
    counts = mutations.campaign(range(count), seed, mutations.LIMIT, failures.append)
    assert not failures
    assert min(counts[f"{kind} refused"] for kind in ("spec", "table", "cluster")) > 0


@pytest.mark.parametrize("error", [TypeError("a fault"), SpecError(["no"])])
def test_the_campaign_sees_faults(mutations, monkeypatch, error):
    """Reject a campaign that takes a traceback, or a message that says nothing, for a refusal."""

    def use(*_):
        raise error

    monkeypatch.setattr(mutations, "USES", dict.fromkeys(mutations.USES, (use,)))
    failures = []
    counts = mutations.campaign(range(3), 0, mutations.LIMIT, failures.append)
    assert len(failures) == 3 and not any("refused" in each or "accepted" in each for each in counts)


def test_a_case_is_a_function_of_its_number(mutations):
    cases = [mutations.case(0, number) for number in range(20)]
    assert cases == [mutations.case(0, number) for number in range(20)] and len({each.content for each in cases}) > 15
