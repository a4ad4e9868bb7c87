"""The cores that a process may use are those of its affinity, within the quota of its container."""

import math
from pathlib import Path

import pytest

from metarun.experiments.jobs.local import devices
from metarun.experiments.system import processors
from metarun.experiments.system.cgroups import memory_limits
from metarun.experiments.system.cgroups import processor_quota as quota
from metarun.experiments.system.processors import cores, limited_threads

V2 = "31 23 0:28 {root} {point} rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = "32 31 0:29 {root} {point} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def process(tmp_path):
    """Return a function that describes a process, and its folder; groups are {folder: {file: text}}."""

    def describe(membership: str, mounts: str, groups: dict[str, dict[str, str]], root: str = "/") -> Path:
        point = tmp_path / "a group"
        for folder, files in groups.items():
            (point / folder).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (point / folder / name).write_text(text)
        (tmp_path / "cgroup").write_text(membership)
        (tmp_path / "mountinfo").write_text(mounts.format(root=root, point=str(point).replace(" ", "\\040")))
        return tmp_path

    return describe


@pytest.mark.parametrize(
    ("granted", "wanted"),
    [("max 100000", math.inf), ("50000 100000", 0.5), ("250000 100000", 2.5), ("20000 10000", 2.0), ("", math.inf)],
)
def test_fault_22_the_quota_of_a_container_is_found(process, granted, wanted):
    assert quota(process("0::/\n", V2, {"": {"cpu.max": f"{granted}\n"}})) == wanted


def test_fault_22_a_group_grants_no_more_than_those_around_it(process):
    """Reject the quota of the innermost group alone, and one of a group beside it."""
    groups = {"": {}, "a": {"cpu.max": "150000 100000"}, "a/b": {"cpu.max": "max 100000"}}
    groups |= {"c": {"cpu.max": "1 100000"}}
    assert quota(process("0::/a/b\n", V2, groups)) == 1.5
    groups["a/b"]["cpu.max"] = "30000 100000"
    assert quota(process("0::/a/b\n", V2, groups)) == 0.3


def test_fault_22_the_quota_of_version_1(process):
    groups = {"pods": {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "50000\n"}}
    groups |= {"pods/x": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}}
    membership = "5:cpuset:/other\n4:cpu,cpuacct:/pods/x\n1:name=systemd:/\n0::/\n"
    cpuset = "30 31 0:27 / /nowhere rw - cgroup cgroup rw,cpuset\n"
    assert quota(process(membership, cpuset + V1, groups)) == 3.0
    assert quota(process("5:cpuset:/pods\n", V1, groups)) == math.inf  # the process is in no group of cpu


@pytest.mark.parametrize("path", ["/docker/1", "/docker/1/", "/", "/../../elsewhere"])
def test_fault_22_a_container_sees_a_part_of_the_hierarchy(process, path):
    """Take the root of the mount for the own group, whatever its name is outside."""
    assert quota(process(f"0::{path}\n", V2, {"": {"cpu.max": "70000 100000"}}, root="/docker/1")) == 0.7


def test_fault_22_runs_and_threads_follow_the_quota(process, monkeypatch):
    """Reject: as many runs at a time, and as many threads, as the affinity has cores."""
    monkeypatch.setattr(processors, "schedulable_cores", lambda: 8)
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for granted, wanted in (("50000 100000", 1), ("250000 100000", 3), ("900000 100000", 8), ("max 100000", 8)):
        folder = process("0::/\n", V2, {"": {"cpu.max": granted}})
        monkeypatch.setattr(processors, "processor_quota", lambda folder=folder: quota(folder))
        assert cores() == wanted and devices(20, None, 0) == [None] * wanted
        limited = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(wanted)) if wanted < 8 else {}
        assert limited_threads() == limited
    folder = process("0::/\n", V2, {"": {"cpu.max": "50000 100000"}})
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # set by the user
    monkeypatch.setattr(processors, "processor_quota", lambda: quota(folder))
    assert limited_threads() == {"TF_NUM_INTRAOP_THREADS": "1"}


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert quota(tmp_path) == math.inf and not list(memory_limits(tmp_path))
    (tmp_path / "cgroup").write_text("not a group\n")
    assert quota(tmp_path) == math.inf and cores() >= 1


def test_limits_of_memory_are_those_of_the_same_groups(process):
    """Reject those of groups beside them, and the word "max"."""
    groups = {"": {"memory.max": "9000"}, "a": {"memory.max": "max"}, "a/b": {"memory.max": "7000"}}
    assert list(memory_limits(process("0::/a/b\n", V2, groups | {"c": {"memory.max": "1"}}))) == [7000, 9000]


def test_limits_of_memory_of_version_1(process):
    mount = V1.replace("rw,cpu,cpuacct", "rw,memory")
    assert list(memory_limits(process("6:memory:/\n", mount, {"": {"memory.limit_in_bytes": "5000\n"}}))) == [5000]
    assert not list(memory_limits(process("6:cpu:/\n", mount, {})))
