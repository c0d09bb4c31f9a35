"""Signals to `sisyphus-client run`, which has no queue."""

import signal
from pathlib import Path

from tests.guarantees.signals.scene import LEEWAY, signals
from tests.support.supervised import Supervised, job
from tests.support.waiting import until


@signals("TERM TERM", "INT TERM", "TERM INT", "HUP HUP", "QUIT QUIT", "HUP TERM")
def test_run_is_cancelled_by_the_first_and_killed_by_the_second(
    supervised: Supervised, tmp_path: Path, names: list[str]
) -> None:
    """The second signal to `run`, whichever it is, waits for nothing; the status names the first."""
    supervised.configure({"grace": "1h"})
    ready = tmp_path / "ready"
    client = supervised.start(job(("stubborn", {"step": "run", "act": "ignore_everything", "ready": str(ready)})))
    until(ready.exists, "the module to run")
    first, second = (signal.Signals[f"SIG{name}"] for name in names)
    client.send_signal(first)
    until(lambda: "again to kill it" in (client.stderr.readline() if client.stderr else ""), "the first to be taken")
    client.send_signal(second)
    client.communicate(timeout=LEEWAY)

    assert client.returncode == 128 + first
