"""An API server for one machine, on SQLite: the routes, statuses and bodies of `sisyphus-server`, without its defects.

It is an extra of the project (`main.serve`, `main.in_background`). What differs from the reference, which keeps its
queue in one database and its records in another: a job is in exactly one place at any instant, so none is lost between
two; an unknown job is a 404; a worker can be disabled before anyone has seen it; a poll costs the same however long the
queue is; and since heartbeats name their job, the job of a worker that has vanished goes back to the head of the queue.
"""
