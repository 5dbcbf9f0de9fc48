"""What every session is set to, so that a statement means the same whatever the server, the database, the role or `PG*` say."""

from __future__ import annotations

from sqlalchemy import TextClause, text

# What the statements and the driver depend on.
_FIXED = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    # As many digits as it takes to read the same number again.
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
    # A row that is refused is found by a savepoint, which must not cost the session.
    "exit_on_error": "off",
}
# Those that not every release has. transaction_timeout (17) would end an upgrade or a long refresh;
# the second (17, and minor releases of earlier ones) closes views; with the third (13) the server's
# log gets the values of a statement that fails.
_WHERE_KNOWN = {
    "transaction_timeout": "0",
    "restrict_nonsystem_relation_kind": "",
    "log_parameter_max_length_on_error": "0",
}


def settings(
    *, statement_timeout: float, lock_timeout: float, idle_timeout: float, local: bool = True
) -> TextClause:
    """A query that sets everything, and says in its columns `read_only` whether the transaction may only read, and `pid` in which
    process of the server it runs.

    Args:
        statement_timeout: seconds; 0 is no limit, here and below.
        lock_timeout: seconds.
        idle_timeout: seconds that a transaction may be idle.
        local: for the transaction in hand; else for the session.
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
        f"CASE WHEN current_setting('{name}', true) IS NOT NULL THEN set_config('{name}', '{value}', {scope}) END"
        for name, value in _WHERE_KNOWN.items()
    ]
    # With `replica` no trigger fires, and the rollups miss what is loaded. Who may not change it is
    # refused here.
    parts.append(
        "CASE WHEN current_setting('session_replication_role') <> 'origin' "
        f"THEN set_config('session_replication_role', 'origin', {scope}) END"
    )
    # A server at its defaults logs the row that it refuses. For a role that is no superuser one of
    # them can say ALTER ROLE ... SET log_error_verbosity = terse.
    parts.append(
        f"CASE WHEN current_setting('is_superuser') = 'on' THEN set_config('log_error_verbosity', 'terse', {scope}) END"
    )
    return text(
        f"SELECT {', '.join(parts)}, current_setting('transaction_read_only') = 'on' AS read_only, pg_backend_pid() AS pid"
    )
