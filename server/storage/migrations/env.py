"""Run by Alembic: migrates within the transaction that `server.storage.database` has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
