"""What Alembic runs: the migrations, over the connection that ``serving.database`` hands it."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
# SQLite cannot alter most of a table in place: batches copy it.
context.configure(connection=connection, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
