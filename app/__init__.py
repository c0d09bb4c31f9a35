"""The names that the module guide promises: configuration, errors and the heartbeat.

Beside them, `formats` and `database` hold the knowledge that the client and the API server share.
"""

VERSION = "2.0.0"
"""The client's version, which the server and modules see. It stands here because `--version` needs nothing else.

The field reads it: modules of the guide need 1.4.0 or newer, and the reference, which does less, calls itself 1.5.9.
"""
