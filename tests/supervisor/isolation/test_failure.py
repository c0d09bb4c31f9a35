"""A wait status in words."""

from supervisor.isolation.failure import explain_status


def test_explain_status() -> None:
    """A wait status in words: a signal with its name, an exit with its status, a real-time signal too."""
    assert explain_status(9).message == "the task process was killed by SIGKILL (killed)"
    assert explain_status(40).signal == "signal 40"
    assert explain_status(3 << 8).exit_status == 3
