"""A real SLURM cluster on one machine, for tests: munge, MariaDB, slurmdbd, slurmctld and two slurmd in one folder.

    python tests/slurm/cluster.py start FOLDER     then: export SLURM_CONF=FOLDER/slurm.conf
    python tests/slurm/cluster.py stop FOLDER

It needs root on a Debian with the packages slurm-wlm, slurmdbd, munge and mariadb-server; systemd is not used. Ports
are free ones and all files are in FOLDER, so several clusters can run at the same time. All of SLURM is real, except
that its GPUs are other device files.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr")
ACCOUNT = "project"
GPUS = 8  # per node
USUAL = "/etc/slurm"  # where Debian's SLURM looks for its configuration
PATIENCE = 60

# Preemption by partition: a job in `urgent` requeues jobs in `batch` and `brief`.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0,requeue_setup_env_fail
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=120
MessageTimeout=30
KillWait=10
OverTimeLimit=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{slurmd}] CPUs=64 RealMemory=400000 Gres=gpu:a100:{gpus}
PartitionName=batch Nodes=n[1-2] Default=YES MaxTime=7-0 DefaultTime=1:00:00 State=UP PriorityTier=1 GraceTime=20
PartitionName=brief Nodes=n[1-2] MaxTime=10 DefaultTime=10 State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n[1-2] MaxTime=1:00:00 State=UP PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing() -> str | None:
    """Return why a cluster cannot be started here; None if it can."""
    if absent := [name for name in COMMANDS if not shutil.which(name, path=_path())]:
        return f"SLURM is not installed here: {', '.join(absent)} are missing"
    return None if os.geteuid() == 0 else "starting SLURM requires root"


class Cluster:
    """The daemons of a cluster. An instance for the folder of a running cluster controls that cluster."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons and create the accounting's cluster and account. On failure, stop everything."""
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        try:
            self._configure()
            self._start_munge()
            self._start_mariadb()
            self.start_slurmdbd()
            self.run("sacctmgr", "-i", "add", "cluster", "test", retry=True)
            self.run("sacctmgr", "-i", "add", "account", ACCOUNT, "cluster=test")
            self.run("sacctmgr", "-i", "add", "user", "root", f"account={ACCOUNT}", "cluster=test")
            self.start_slurmctld()
            for node in ("n1", "n2"):
                self._daemon(f"slurmd-{node}", *self._private, "slurmd", "-D", "-N", node)
            self._wait(
                "two idle nodes",
                lambda: self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%t").split() == ["idle"] * 2,
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all daemons and kill the processes of jobs."""
        for name in ("slurmctld", "slurmd-n1", "slurmd-n2", "slurmdbd", "mariadb", "munge"):
            self._end(name)
        mine = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)

    def run(self, *command: str, retry: bool = False) -> str:
        """Run a SLURM command and return its output. With ``retry``, repeat it while a daemon is not ready."""
        deadline = time.monotonic() + PATIENCE * retry
        while True:
            ended = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            if ended.returncode == 0:
                return ended.stdout
            if time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)}: {ended.stderr or ended.stdout}")
            time.sleep(0.5)

    @property
    def _private(self) -> list[str]:
        """The command prefix that starts a daemon with this cluster's configuration mounted at SLURM's usual place.

        Snakemake's plugin removes SLURM_CONF from the environment of its jobs, which are children of the daemon.
        """
        mount = f'mkdir -p {USUAL} && mount --bind {self.folder} {USUAL} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh"]

    def start_slurmctld(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D")
        self._wait("slurmctld", lambda: "UP" in self.run("scontrol", "ping"))

    def stop_slurmctld(self) -> None:
        self._end("slurmctld")

    def start_slurmdbd(self) -> None:
        self._daemon("slurmdbd", "slurmdbd", "-D")

    def stop_slurmdbd(self) -> None:
        self._end("slurmdbd")

    def _configure(self) -> None:
        ports = _free_ports(5)
        self._password = secrets.token_hex(16)
        values = {
            "folder": self.folder,
            "host": socket.gethostname().partition(".")[0],
            "gpus": GPUS,
            "slurmctld": ports[0],
            "slurmdbd": ports[1],
            "mariadb": ports[2],
            "slurmd": f"{ports[3]},{ports[4]}",
            "password": self._password,
        }
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(SLURMDBD_CONF.format(**values))
        dbd.chmod(0o600)
        (self.folder / "gres.conf").write_text(f"Name=gpu Type=a100 File=/dev/tty[1-{GPUS}]\n")
        self.mariadb_port = ports[2]

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir(mode=0o700)
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = {"key-file": key, "pid-file": folder / "pid", "seed-file": folder / "seed", "log-file": folder / "log"}
        options = [f"--{name}={path}" for name, path in files.items()]
        # --force: the folder of the socket is readable by others.
        self._daemon("munge", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *options)
        self._wait("munge", (self.folder / "munge.socket").exists)

    def _start_mariadb(self) -> None:
        data, sock = self.folder / "mariadb", self.folder / "mariadb.socket"
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        subprocess.run(install, check=True, env=self.environment, capture_output=True)
        self._daemon(
            "mariadb", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}",
            f"--pid-file={self.folder}/mariadb.pid", f"--port={self.mariadb_port}", "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=64M", "--skip-name-resolve",
        )  # fmt: skip
        self._wait("mariadb", sock.exists)
        rights = (
            f"CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{self._password}';"
            "GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1;"
        )
        self.run("mariadb", "--no-defaults", f"--socket={sock}", "--user=root", f"--execute={rights}", retry=True)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("a") as out:
            process = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )
        (self.folder / f"{name}.process").write_text(str(process.pid))

    def _end(self, name: str) -> None:
        path = self.folder / f"{name}.process"
        if not path.exists():
            return
        pid = int(path.read_text())
        for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            deadline = time.monotonic() + patience
            try:
                os.kill(pid, number)
                while time.monotonic() < deadline and _runs(pid):
                    time.sleep(0.1)
            except ProcessLookupError:
                break
        path.unlink()

    def _wait(self, what: str, there) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if there():
                    return
            except RuntimeError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not there after {PATIENCE} s; see the logs in {self.folder}")
            time.sleep(0.2)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _runs(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # a daemon of this very process would stay as a zombie
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main() -> None:
    action, folder = sys.argv[1:]
    {"start": Cluster.start, "stop": Cluster.stop}[action](Cluster(Path(folder)))
    if action == "start":
        print(f"export SLURM_CONF={Path(folder).absolute()}/slurm.conf")


if __name__ == "__main__":
    main()
