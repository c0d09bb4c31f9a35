"""Notices of events, for those who are to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "notices",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("target", "id", "event", "document")),
        sa.Column("at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in ("due_at", "sent_at")),
    )
    op.create_index("notices_unique", "notices", ["target", "id"], unique=True)
    op.create_index("notices_by_time", "notices", ["target", "sent_at", "number"])
