"""The settings of every session.

With them, a statement means the same under any configuration of the server, the database, the role
and the `PG*` variables.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

# Settings that the statements and the driver depend on.
_FIXED = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    # Enough digits to read back the same number.
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
    # A savepoint isolates a refused row; the error must not end the session.
    "exit_on_error": "off",
}
# Settings that not every release has.
# - transaction_timeout (since 17) would end an upgrade or a long refresh.
# - restrict_nonsystem_relation_kind (17, and minor releases of earlier ones) can forbid views.
# - log_parameter_max_length_on_error (since 13) would write the values of a failed statement to the
#   server's log.
_WHERE_KNOWN = {
    "transaction_timeout": "0",
    "restrict_nonsystem_relation_kind": "",
    "log_parameter_max_length_on_error": "0",
}

END_WITH_CLIENT = b"""
    SELECT set_config('client_connection_check_interval', '1000', false)
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL
      AND version() ~* 'linux'
"""
"""Makes the server end a statement of this session if the client's process is killed.

PostgreSQL can do that from version 14 on, on Linux. It is for statements that may take hours.
"""


def settings(
    *, statement_timeout: float, lock_timeout: float, idle_timeout: float, local: bool = True
) -> TextClause:
    """Return a query that applies all settings.

    Its column `read_only` says whether the transaction may only read. Its column `pid` is the
    server process that runs the transaction.

    Args:
        statement_timeout: seconds; 0 is no limit, here and below.
        lock_timeout: seconds.
        idle_timeout: seconds that a transaction may be idle.
        local: apply the settings to the current transaction only; otherwise to the session.
    """
    seconds = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": idle_timeout,
    }
    fixed = {**_FIXED, **{name: str(round(value * 1000)) for name, value in seconds.items()}}
    scope = str(local).lower()
    parts = [f"set_config('{name}', '{value}', {scope})" for name, value in fixed.items()]
    parts += [
        f"CASE WHEN current_setting('{name}', true) IS NOT NULL "
        f"THEN set_config('{name}', '{value}', {scope}) END"
        for name, value in _WHERE_KNOWN.items()
    ]
    # Under `replica` no trigger fires, and the rollups miss the loaded rows. A user who may not
    # change the setting fails here.
    parts.append(
        "CASE WHEN current_setting('session_replication_role') <> 'origin' "
        f"THEN set_config('session_replication_role', 'origin', {scope}) END"
    )
    # By default the server logs the row that it refuses. Only a superuser may change that setting;
    # for another role, a superuser can run ALTER ROLE ... SET log_error_verbosity = terse.
    parts.append(
        "CASE WHEN current_setting('is_superuser') = 'on' "
        f"THEN set_config('log_error_verbosity', 'terse', {scope}) END"
    )
    # One column for all settings: this query begins each transaction, and the client prepares every
    # column of a result.
    return text(
        f"SELECT cardinality(ARRAY[{', '.join(parts)}]), "
        "current_setting('transaction_read_only') = 'on' AS read_only, pg_backend_pid() AS pid"
    )
