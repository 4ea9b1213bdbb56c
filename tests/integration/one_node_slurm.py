"""A Slurm of one node in a folder, with a munge and ports of its own.

Of the system it touches one thing while it runs: /etc/slurm/slurm.conf is a link to its settings,
because Snakemake takes SLURM_CONF from the environment of the jobs. A requeued job waits for as
long as credentials hold (cred_expire), by default two minutes.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
SETTINGS = """\
ClusterName=capscope
SlurmctldHost={host}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
JobRequeue=1
NodeName={host} CPUs=2 RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
SYSTEM_SETTINGS = Path("/etc/slurm/slurm.conf")
BINARIES = "/usr/local/sbin:/usr/sbin:/sbin"


def install():
    """Return None if Slurm is there, having installed it if need be; else why it is not."""
    if os.geteuid() != 0:
        return "only root can start it"
    if SYSTEM_SETTINGS.exists():
        return f"this machine has one already: {SYSTEM_SETTINGS}"
    path = f"{os.environ['PATH']}:{BINARIES}"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if not missing:
        return None
    if not shutil.which("apt-get"):
        return f"{', '.join(missing)} missing, and no apt-get to install {' and '.join(PACKAGES)}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "--yes", *PACKAGES]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(command)} fails: {done.stderr.strip().splitlines()[-1]}"
    return None


class OneNodeSlurm:
    """Two processors, a pretended GPU, the partitions ``cpu`` and ``gpu``; no accounting."""

    def __init__(self, folder):
        self.folder, self.daemons = folder, []
        self.environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:{BINARIES}",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        with socket.socket() as first, socket.socket() as second:
            first.bind(("", 0))
            second.bind(("", 0))
            ports = {"controller": first.getsockname()[1], "daemon": second.getsockname()[1]}
        text = SETTINGS.format(
            host=socket.gethostname(),
            user=getpass.getuser(),
            folder=self.folder,
            **ports,
        )
        (self.folder / "slurm.conf").write_text(text)
        SYSTEM_SETTINGS.parent.mkdir(exist_ok=True)
        SYSTEM_SETTINGS.unlink(missing_ok=True)  # a link that has lost its file
        SYSTEM_SETTINGS.symlink_to(self.folder / "slurm.conf")
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        try:
            self._start(
                "munged",
                "--foreground",
                "--force",
                f"--socket={self.folder}/munge.socket",
                f"--key-file={key}",
                f"--pid-file={self.folder}/munged.pid",
                f"--log-file={self.folder}/munged.log",
                f"--seed-file={self.folder}/munged.seed",
            )
            self._until((self.folder / "munge.socket").exists, "munged does not answer")
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D")
            self._until(lambda: "idle" in self.run("sinfo", "--noheader"), "the node is not idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.cancel_all()
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        SYSTEM_SETTINGS.unlink(missing_ok=True)

    def run(self, *command):
        """Run a command of Slurm and return what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def running(self):
        """Return the ids of the running jobs by their comments: rule and wildcards."""
        lines = self.run("squeue", "--noheader", "--states=R", "--format=%i|%k").splitlines()
        return {comment: number for number, comment in (line.split("|", 1) for line in lines)}

    def cancel_all(self):
        """End all jobs; those of daemons that have ended would go on."""
        self.run("scancel", "--user", getpass.getuser())
        end = time.monotonic() + 30
        while self.run("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.2)

    def _start(self, *command):
        log = (self.folder / f"{command[0]}.out").open("w")
        self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def _until(self, true, message, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            logs = [path.read_text("utf-8", "replace") for path in self.folder.glob("*.out")]
            assert time.monotonic() < end, f"{message}\n" + "\n".join(logs)
            time.sleep(0.2)
