"""A real Slurm cluster on this one machine: munged, slurmctld and a slurmd for every node, each on a port of its own.

Everything it writes lies in one folder of its own, and everything it starts is known by the variable SLURM_CONF, which
all of its processes inherit. It ends with close(); where the test itself is killed, a keeper process ends it.
"""

import contextlib
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun"]
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
NODE = "MOEVAR_TEST_NODE"  # of a node's slurmd, and so of the keepers of its steps
START_S = 30
END_S = 10
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
# Nodes share a machine: each has its own TmpFS, or PMIx of two of them meets. A requeued job may start again when the
# credentials of its last start have expired, and no sooner. A node that is gone is noticed after a few timeouts.
CONFIGURATION = """
ClusterName=moevar
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={control_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
TmpFS={folder}/tmp-%n
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,default_queue_depth=100
SlurmdParameters=config_overrides
SlurmdTimeout=6
MessageTimeout=5
TreeWidth=65533
InactiveLimit=0
KillWait=5
MinJobAge=600
CompleteWait=0
JobRequeue=1
ReturnToService=2
SlurmctldParameters=idle_on_node_suspend
NodeName=DEFAULT CPUs={cpus} RealMemory=1024 State=UNKNOWN
{nodes}
{more}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def lacking():
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def free_ports(count):
    """TCP ports that nobody has now, and that the kernel gives to no connection of another program meanwhile: from
    below the range from which it takes those (32768 to 60999 by default)."""
    with contextlib.ExitStack() as stack:
        ports = []
        for port in random.sample(range(15000, 32000), 1000):
            taken = stack.enter_context(socket.socket())
            try:
                taken.bind(("", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"no {count} free ports below 32000")


def processes_of(marker, also=()):
    """Ids of the living processes whose environment holds `marker` and, where given, one of `also`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words and (not also or any(word.encode() in words for word in also)):
            found.append(int(entry.name))
    return found


def signal_each(processes, number):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def end_all(folder):
    """Ends whatever still runs of the cluster in this folder, and removes the folder."""
    marker = f"SLURM_CONF={folder}/slurm.conf"
    until = time.monotonic() + END_S
    while (left := processes_of(marker)) and time.monotonic() < until:
        signal_each(left, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def keep(folder):
    """A process that waits until this one is gone and then ends what is left of the cluster; the pipe to it."""
    reading, writing = os.pipe()
    starter = os.fork()
    if starter == 0:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(writing)
        with contextlib.suppress(OSError):
            os.read(reading, 1)
        end_all(folder)
        os._exit(0)
    os.waitpid(starter, 0)
    os.close(reading)
    return writing


class Cluster:
    """`cluster = Cluster(4)`, `cluster.start()`, `cluster.submit(...)`, `cluster.close()`; as root or another user."""

    def __init__(self, nodes=4, cpus=2, more=""):
        """`more`: further lines of slurm.conf."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="moevar-slurm-"))
        self.folder.chmod(0o755)
        self.nodes = [f"node{n}" for n in range(1, nodes + 1)]
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        self.environment.update(PATH=PATH, SLURM_CONF=str(self.folder / "slurm.conf"))
        self.daemons = {}
        self.keeper = keep(self.folder)
        self._configure(cpus, more)

    def start(self):
        """Starts it and waits until every node takes jobs. Throws with all logs where that fails."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Ends every process and removes the folder."""
        if self.keeper is None:
            return
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()
        end_all(self.folder)
        os.close(self.keeper)
        self.keeper = None

    def _configure(self, cpus, more):
        import pwd

        control_port, *ports = free_ports(1 + len(self.nodes))
        lines = [f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port}"
                 for node, port in zip(self.nodes, ports)]
        text = CONFIGURATION.format(folder=self.folder, user=pwd.getpwuid(os.geteuid()).pw_name, cpus=cpus,
                                    control_port=control_port, nodes="\n".join(lines), more=more)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))

    def _daemon(self, name, *command, **variables):
        with open(self.folder / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(command, env={**self.environment, **variables},
                                                  stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                                  start_new_session=True)

    def _start(self):
        f = self.folder
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={f}/munge.key",
                     f"--socket={f}/munge.socket", f"--pid-file={f}/munge.pid", f"--log-file={f}/munge.log",
                     f"--seed-file={f}/munge.seed")
        self._wait_for("munged's socket", (f / "munge.socket").exists)
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for node in self.nodes:
            self.start_node(node)
        self._wait_for("all nodes idle", lambda: self.states() == {node: "idle" for node in self.nodes})

    def start_node(self, node):
        """Starts a node's slurmd."""
        temporary, spool = self.folder / f"tmp-{node}", self.folder / node
        for left in (temporary, spool):  # a node set up anew: PMIx begins no step over what one of its number left
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        self._daemon(node, "slurmd", "-D", "-N", node, **{NODE: node})

    def _wait_for(self, what, reached):
        until = time.monotonic() + START_S
        while not reached():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > until:
                raise RuntimeError(f"Slurm: {what}: not within {START_S} s; ended: {dead or 'none'}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self, lines=15):
        """The last lines of every log, for the message of a failed test."""
        files = sorted({*self.folder.glob("*.log"), *self.folder.glob("*.out")})
        return "\n".join(f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
                         for path in files)

    def run(self, *command, **options):
        """A command of Slurm's, or any other, as a user of this cluster."""
        changes = options.pop("env", {})
        return subprocess.run(list(map(str, command)), env={**self.environment, **changes}, capture_output=True,
                              text=True, timeout=options.pop("timeout", 60), **options)

    def states(self):
        """Each node's state as sinfo tells it, without marks."""
        told = self.run("sinfo", "-h", "-N", "-o", "%N %T")
        return {line.split()[0]: line.split()[1].rstrip("*~#!%$@^-") for line in told.stdout.splitlines()}

    def submit(self, script, *options, env=None, cwd=None):
        """Submits a batch script; the job's number. Raises where Slurm refuses it."""
        told = self.run("sbatch", "--parsable", *options, script, env=env or {}, cwd=cwd)
        if told.returncode:
            raise RuntimeError(f"sbatch: {told.stderr}")
        return told.stdout.strip()

    def job(self, job):
        """What Slurm knows of a job: JobState, Restarts, ExitCode, NodeList, ..."""
        told = self.run("scontrol", "show", "job", "-o", job).stdout
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def wait(self, job, limit_s, until=None):
        """Waits until the job is over, or until `until()`; what Slurm then knows of it."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            known = self.job(job)
            if until() if until else known.get("JobState") in OVER:
                return known
            time.sleep(0.2)
        raise RuntimeError(f"job {job}: not within {limit_s} s; {self.job(job)}\n{self.logs()}")

    def kill_node(self, node):
        """The node's power fails: its slurmd, the keepers of its steps and its ranks are gone, and none tells of it."""
        daemon = self.daemons.pop(node)
        marks = (f"{NODE}={node}", f"SLURMD_NODENAME={node}")
        # stopped before the first one dies: none sees another one's end
        for number in (signal.SIGSTOP, signal.SIGKILL):
            signal_each(processes_of(f"SLURM_CONF={self.folder}/slurm.conf", marks), number)
        daemon.wait()
