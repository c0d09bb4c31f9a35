"""`top`: live on a terminal, which it leaves as it was; once elsewhere."""

import signal
import subprocess

from tests.supervisor.commands.farm.conftest import GOOD, Operator
from tests.supervisor.commands.terminal import on_terminal


def test_top(operator: Operator, held_job: str) -> None:
    """What runs, how far and where; why a job waits; Ctrl-C ends it with status 0, cursor and screen restored."""
    waiting = operator.post(GOOD | {"requires": ["gpu"]})

    def interrupt(process: "subprocess.Popen[bytes]", shown: str) -> bool:
        if shown.count("encoder01") < 3:  # drawn anew
            return False
        process.send_signal(signal.SIGINT)
        return True

    status, shown = on_terminal(operator.environ, "top", "--interval", "0.2", act=interrupt, raw=True)
    once = operator("top")

    assert status == 0, shown
    assert shown.index("\x1b[?1049h") < shown.index("encoder01") < shown.rindex("\x1b[?1049l")
    assert shown.rindex("\x1b[?25l") < shown.rindex("\x1b[?25h")
    assert "1 wait: no live worker has the tag gpu" in once.stdout
    assert "reporter, encoding, 43 %, 1.50x, 1:02:03 left" in once.stdout
    operator.api("POST", f"/jobs/{waiting}/cancel")
