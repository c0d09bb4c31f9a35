"""What keeps the server from serving.

ServerError
└── StoreError   the database
"""


class ServerError(Exception):
    """The server cannot start; the text is one line for a person."""


class StoreError(ServerError):
    """The database cannot be used: where it lies, what it is, or who else has it."""
