"""A real Slurm of two nodes on this machine: Debian's packages slurmctld, slurmd, slurm-client and munge, loopback
only, as root or as an ordinary user. It counts cores and does not bind them, and it keeps no accounts (no sacct)."""

import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
FirstJobId={first}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits; less than 5 means 120
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_continue
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
MaxArraySize={longest}
KillWait=5
CompleteWait=0
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
PlugStackConfig={folder}/plugstack.conf
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=1000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=100 PreemptMode=OFF
"""


def missing() -> str:
    """Explain why no cluster can be started here; "" where one can."""
    lacking = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge"
    with contextlib.suppress(OSError):
        if socket.gethostbyname(socket.gethostname().split(".")[0]).startswith("127."):
            return ""
    return f"the name of this machine, {socket.gethostname()}, does not resolve to 127.x, which Slurm on loopback needs"


@contextlib.contextmanager
def cluster(longest: int = 1001) -> Iterator[Path]:
    """Start it, wait until its nodes are idle, and yield its slurm.conf; everything is ended at the end. `longest` is
    MaxArraySize."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets in it: its path must be short
    daemons: list[subprocess.Popen] = []
    try:
        yield _start(folder, longest, daemons)
    finally:
        _stop(folder, daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, longest: int, daemons: list[subprocess.Popen]) -> Path:
    folder.chmod(0o755)
    for name in ("state", "spool.node1", "spool.node2"):
        (folder / name).mkdir()
    (folder / "plugstack.conf").write_text("")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    told = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "ports": _free_ports(3)}
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=folder, first=random.randrange(1000, 10**6), longest=longest, **told)
    )
    munge = {"key-file": key, "socket": folder / "munge.sock", "pid-file": folder / "munge.pid",
             "log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}  # fmt: skip
    commands = [
        ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items())],
        ["slurmctld", "-D", "-f", str(configuration)],
        *(["slurmd", "-D", "-N", node, "-f", str(configuration)] for node in ("node1", "node2")),
    ]
    for command in commands:
        with open(folder / "daemons.log", "ab") as log:
            environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(configuration)}
            daemons.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                 start_new_session=True)
            )  # fmt: skip
        if command[0] == "munged":
            _wait(lambda: (folder / "munge.sock").exists(), daemons, folder)
    _wait(lambda: _ask(configuration, "sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip() == "2", daemons,
          folder)  # fmt: skip
    return configuration


def _stop(folder: Path, daemons: list[subprocess.Popen]) -> None:
    configuration = folder / "slurm.conf"
    _ask(configuration, "scancel", "-f", f"--user={getpass.getuser()}")
    end = time.monotonic() + 15
    while _ask(configuration, "squeue", "-h") and time.monotonic() < end:
        time.sleep(0.1)
    for process in reversed(daemons):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(configuration: Path, *command: str) -> str:
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60).stdout
    return ""


def _wait(ready, daemons: list[subprocess.Popen], folder: Path) -> None:
    end = time.monotonic() + 120
    while not ready():
        dead = [process.args for process in daemons if process.poll() is not None]
        if dead or time.monotonic() > end:
            raise RuntimeError(f"Slurm did not start: {dead}; {(folder / 'daemons.log').read_text()[-2000:]}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
