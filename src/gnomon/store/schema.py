"""The two tables of the store, as the newest migration leaves them (a test compares the two).

Times are text in ISO 8601, UTC, with microseconds and a 'Z': both databases sort them and neither converts them.
"""

import sqlalchemy as sa

metadata = sa.MetaData()
STATUSES = ("running", "done", "failed", "broken")

# started_at .. error: see store.RunRow. host, boot, pid, process_started: see writer.Writer.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(22), primary_key=True),
    sa.Column("started_at", sa.String(27), nullable=False),
    sa.Column("ended_at", sa.String(27)),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),  # canonical JSON
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("task_digest", sa.Text, nullable=False),
    sa.Column("gnomon_version", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("process_started", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("outcome", sa.Text),  # core.errors.OUTCOMES; NULL while it runs
    sa.CheckConstraint("status IN ('running', 'done', 'failed', 'broken')", name="runs_status"),
)

# digest: of the canonical JSON, which payload holds compressed by zlib. The columns from task on are copies of a few
# values of the record, for lists and filters only; kinds.HOT says which.
results = sa.Table(
    "results",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(22), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),  # 0, 1, ... within the run
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
    sqlite_autoincrement=True,  # an id is never given twice
)
sa.Index("runs_started", runs.c.started_at)
sa.Index("runs_status_host", runs.c.status, runs.c.host)
sa.Index("results_kind_task", results.c.kind, results.c.task)
