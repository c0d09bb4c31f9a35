"""The modules, and what serves them in a task process. They import `app` and `ipc`, and never the supervisor."""
