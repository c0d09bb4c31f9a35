"""The supervisor imports no module, ever: code of a module runs in task processes alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client import QUICK, Client, Held
from tests.support.farm import Farm
from tests.support.supervised import Supervised
from tests.support.waiting import until

PROGRAM = """
import atexit, json, os, sys, threading, time
from pathlib import Path

asked, told = map(Path, sys.argv[1:3])
del sys.argv[1:3]

def tell():
    told.with_suffix(".new").write_text(json.dumps(list(sys.modules)))
    told.with_suffix(".new").rename(told)

def tell_when_asked():
    while not asked.exists():
        time.sleep(0.01)
    tell()

atexit.register(tell)
threading.Thread(target=tell_when_asked, daemon=True).start()

from supervisor.__main__ import main
main()
"""
"""The console script, which also writes the names of its imported modules to a file: when asked, and at its end."""


@pytest.mark.parametrize("command", ["run", "start", "modules"])
def test_supervisor_has_no_module(
    farm: Farm, client: Client, supervised: Supervised, held: Held, tmp_path: Path, command: str
) -> None:
    """While a job runs, in the worker and in the foreground, and after all modules were inspected."""
    asked, told = tmp_path / "asked", tmp_path / "told"
    words = [command, "--config", str(supervised.config)]
    words += [str(supervised.write_job(held.job))] if command == "run" else []
    farm.post(held.job)

    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(asked), str(told), *words],
        env=os.environ | QUICK | {"API_URL": farm.url},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            if command != "modules":
                held.await_running()
                asked.touch()
            until(told.exists, "the supervisor to tell what it has imported")
            held.let_go()
            if command == "start":
                process.terminate()
            process.wait(60)
        finally:
            process.kill()

    imported = json.loads(told.read_text())
    assert "supervisor.isolation.task_process" in imported
    assert not {name.partition(".")[0] for name in imported} & {"child", "modules", "reporter", "tests"}
