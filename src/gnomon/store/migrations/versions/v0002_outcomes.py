"""Every run that has ended gets a named outcome; for older runs it is read off what they say of their error."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# what the class of an error said of the outcome when errors did not carry one
_OF_CLASS = {
    "CheckFailed": "check-failed",
    "UsageError": "bad-input",
    "ManifestError": "bad-input",
    "UnknownName": "bad-input",
    "NotRunnable": "not-runnable",
    "DamagedData": "damaged-data",
    "KeyboardInterrupt": "interrupted",
    "MemoryError": "out-of-memory",
}


def upgrade() -> None:
    op.add_column("runs", sa.Column("outcome", sa.Text))
    op.execute("UPDATE runs SET outcome = 'done' WHERE status = 'done'")
    op.execute("UPDATE runs SET outcome = 'killed' WHERE status = 'broken'")
    op.execute("UPDATE runs SET outcome = 'error' WHERE status = 'failed'")
    for name, outcome in _OF_CLASS.items():
        begins = f"(error = '{name}' OR substr(error, 1, {len(name) + 2}) = '{name}: ')"
        op.execute(f"UPDATE runs SET outcome = '{outcome}' WHERE status = 'failed' AND {begins}")


def downgrade() -> None:
    op.drop_column("runs", "outcome")
