"""A client touches nothing that is not its own: clients in other namespaces, of other users, what was there before."""

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.supervised import BENIGN, Supervised, hostile
from tests.support.waiting import until

NAMESPACES = {
    "the future": ["unshare", "--time", "--boottime=100000", "--monotonic=5000", "--kill-child"],
    "the past": ["unshare", "--time", "--boottime=-60", "--kill-child"],
    "PID namespace": ["unshare", "--pid", "--kill-child", "--mount-proc"],
    "user namespace": ["unshare", "--user", "--map-root-user"],
    "container": ["unshare", "-p", "-U", "-r", "-m", "-i", "-u", "-T", "--kill-child", "--mount-proc"],
    # It may read the test's files, which are root's.
    "another user": ["setpriv", "--reuid=65534", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"],
    "the same": ["env"],
}


def in_namespace(name: str) -> list[str]:
    command = NAMESPACES[name]
    done = subprocess.run([*command, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this cannot be made here: {done.stderr.strip()}")
    return command


@pytest.mark.parametrize("name", NAMESPACES)
def test_clients_side_by_side(supervised: Supervised, tmp_path: Path, name: str) -> None:
    """Two clients, one of them elsewhere, run tools; two more start and end beside them. All live."""
    elsewhere = in_namespace(name)
    clients, done = [], []
    for place, supervised.launcher in (("here", []), ("elsewhere", elsewhere)):
        ready = tmp_path / place
        job_file = supervised.write_job(hostile("tool", ready=str(ready)), f"{place}.json")
        clients.append(supervised.start_on(job_file))
        until(ready.exists, f"the tool {place}")
    before = [tree(client) for client in clients]
    for supervised.launcher in ([], elsewhere):
        done.append(supervised.run(BENIGN))
    after = [tree(client) for client in clients]
    for client in clients:
        end(client)

    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert all(len(each) >= 3 for each in before)  # zygote, task process, tool
    assert after == before


def tree(client: "subprocess.Popen[str]") -> set[psutil.Process]:
    return {process for process in psutil.Process(client.pid).children(recursive=True) if process.is_running()}


def end(client: "subprocess.Popen[str]") -> None:
    """Ask a client to end, which `unshare` may have forked: killed, it would leave its cgroup to its own kind."""
    process = psutil.Process(client.pid)
    (process.children()[0] if "--kill-child" in client.args else process).terminate()
    client.communicate()


def test_a_foreign_proc(supervised: Supervised) -> None:
    """Where /proc shows another PID namespace, all pids in it are strangers: the client says so and does not start."""
    in_namespace("PID namespace")
    supervised.launcher = ["unshare", "--pid", "--fork"]
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        done = supervised.run(BENIGN)
        alive = stranger.poll() is None
        stranger.kill()

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "the client cannot start: /proc does not show the PID namespace of this process: mount it anew"
        " (unshare --mount-proc)"
    ]
    assert alive


@pytest.mark.parametrize("own_session", [False, True])
def test_what_was_there_before_the_client(supervised: Supervised, tmp_path: Path, own_session: bool) -> None:
    """What a container's script starts before it becomes the client lives on, also when the zygote is lost."""
    pid_file, ready = tmp_path / "pid", tmp_path / "ready"
    helper = f"{'setsid' if own_session else 'nice'} sleep 1000 >/dev/null 2>&1 & echo $! > {pid_file}; "
    supervised.launcher = ["sh", "-c", helper + 'exec "$@"', "sh"]
    client = supervised.start(hostile("tool", ready=str(ready)))
    until(ready.exists, "the module to run")
    helper_process = psutil.Process(int(pid_file.read_text()))
    (zygote,) = [child for child in psutil.Process(client.pid).children() if child != helper_process]
    ready.unlink()
    zygote.kill()
    until(ready.exists, "the module to run again")
    client.terminate()
    client.communicate()
    alive = helper_process.is_running() and helper_process.status() == psutil.STATUS_SLEEPING
    helper_process.kill()

    assert client.returncode == 143
    assert alive
