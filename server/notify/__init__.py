"""Word to people and programs when something ends or fails: `[tool.server.notify]`."""
