"""The errors that keep the server from starting.

ServerError
└── StoreError   the database
"""


class ServerError(Exception):
    """The server cannot start; the text is one line for a person."""


class StoreError(ServerError):
    """The database cannot be used: its place, its content, or another server that uses it."""
