"""The names that the module guide promises: configuration, errors and the heartbeat.

Beside them, `formats` and `database` hold the knowledge that the client and the API server share.
"""
