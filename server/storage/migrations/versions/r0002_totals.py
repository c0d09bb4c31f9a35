"""Totals of ended jobs, for metrics: they begin with this revision."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "totals",
        sa.Column("state", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Integer, primary_key=True, autoincrement=False) for name in ("need", "bucket")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("ended", "milliseconds")),
    )
