"""Runs and their results."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(22), primary_key=True),
        sa.Column("started_at", sa.String(27), nullable=False),
        sa.Column("ended_at", sa.String(27)),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("task_digest", sa.Text, nullable=False),
        sa.Column("gnomon_version", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("process_started", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("status IN ('running', 'done', 'failed', 'broken')", name="runs_status"),
    )
    op.create_table(
        "results",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String(22), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("schema", sa.Text, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("task_digest", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("variant", sa.Text),
        sa.Column("latency_s", sa.Double),
        sa.Column("speedup", sa.Double),
        sa.Column("verdict", sa.Text),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("run_id", "position", name="results_run_position"),
        sqlite_autoincrement=True,
    )
    op.create_index("runs_started", "runs", ["started_at"])
    op.create_index("runs_status_host", "runs", ["status", "host"])
    op.create_index("results_kind_task", "results", ["kind", "task"])


def downgrade() -> None:
    op.drop_table("results")
    op.drop_table("runs")
