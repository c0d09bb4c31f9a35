"""The command line. `cli` has the list of the commands; each is a function in one of the other modules."""

COMPLETED, FAILED, WRONG = 0, 1, 2
"""Exit statuses: success; the job failed, or nothing was found; arguments, settings, machine or server are wrong."""
