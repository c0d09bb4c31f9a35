"""The names that the module guide promises: configuration, errors and the heartbeat.

Beside them, `formats` and `database` hold the knowledge that the client and the API server share.
"""

VERSION = "1.4.0"
"""The client's version, which the server and modules see. It stands here because `--version` needs nothing else."""
