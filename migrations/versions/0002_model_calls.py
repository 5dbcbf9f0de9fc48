"""The view of model calls: prompts, answers, tools, media and settings as columns."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"

# Each after those it uses.
_SQL_FILES = ("content_shapes", "model_call_text", "model_calls")


def upgrade() -> None:
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}_v1.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    op.execute("DROP VIEW orchestra.model_calls")
    op.execute(
        "DROP FUNCTION orchestra.call_parameters, orchestra.audio_count, orchestra.image_count,"
        " orchestra.media_count, orchestra.called_tools, orchestra.answer_text,"
        " orchestra.system_text, orchestra.prompt_text, orchestra.request_messages,"
        " orchestra.content_text, orchestra.model_bodies, orchestra.opened, orchestra.parsed_json,"
        " orchestra.content_shapes"
    )
