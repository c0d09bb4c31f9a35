"""The calls to the API server."""
