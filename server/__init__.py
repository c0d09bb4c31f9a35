"""An API server on SQLite or PostgreSQL: the routes, statuses and bodies of `sisyphus-server`, without its defects.

It is an extra of the project; `main.serve` and `main.in_background` run it. `sisyphus-server` keeps its queue in one
database and its records in another. The differences:

- A job is in exactly one place at any instant, so none is lost between two databases.
- An unknown job is a 404.
- A worker can be disabled before it has sent a heartbeat.
- A poll costs the same however long the queue is.
- Heartbeats name their job, so the job of a worker that has vanished goes back to the head of the queue.
"""
