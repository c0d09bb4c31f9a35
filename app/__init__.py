"""The names that the module guide promises: configuration, errors and the heartbeat.

Beside them, `formats` and `database` hold the knowledge that the client and the API server share.
"""

VERSION = "2.0.0"
"""The client's version, which the server and modules see. It stands here because `--version` needs nothing else.

The field reads it: modules of the guide need 1.4.0 or newer, and the reference, which does less, calls itself 1.5.9.
"""

SECRETS = frozenset({"API_TOKEN", "WORKER_TOKEN"})
"""Settings that are never shown, and that tasks and their tools do not get."""

NOTIFY_PREFIX = "NOTIFY_"
"""Begins the names of variables with secrets for `[tool.server.notify]`, which tasks and their tools do not get."""

MODULE_PREFIX = "MODULE_"
"""Begins the names of variables for modules' settings. Tasks do not get them: a module gets its own settings alone."""
