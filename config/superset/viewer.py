"""Limit viewers to the queries of the dashboards' charts and filters, without SQL of their own.

In Superset, every user who may read a dataset can send any SQL expression as a metric, a column or
a filter to `/api/v1/chart/data`, from which charts get their data. A viewer's query is compared
with the stored chart, or with the dashboards' filters: its columns, metrics and SQL must be the
stored ones. The viewer can only choose filter values, the time, its grain, the order and the page.
Every other way to the data is closed to viewers.

The connection that reads payloads is open to the role PAYLOAD_ROLE alone: to users with Superset's
own roles for all data, such as the administrator, only if they have that role too.

Superset imports this module because of `CUSTOM_SECURITY_MANAGER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
from superset.exceptions import SupersetSecurityException
from superset.security import SupersetSecurityManager
from superset.utils import json
from superset.utils.core import get_user_id

ROLE = "Dashboards viewer"
PAYLOAD_ROLE = "Payload viewer"
PAYLOADS = "6f1f3a0e-6a49-4d5e-9b55-0c1d5a6f0002"
"""The UUID of the connection that reads payloads."""
DATA = ("database", "datasource", "query", "query_context", "viz")
"""What a request for data names; one for a chart or a dashboard is for its title and settings."""
RESULTS = (None, "full", "results", "timegrains")
"""The result types for viewers; not the SQL, and no samples of columns that no chart shows."""
EXTRAS = ("where", "having", "time_grain_sqla")
RESHAPED = ("pivot", "flatten", "rename", "resample")
"""The allowed operations on the rows of a query."""


class ViewerSecurityManager(SupersetSecurityManager):
    """Superset's security manager, with the limits of viewers."""

    def raise_for_access(self, **asked: Any) -> None:
        """Check a request with Superset's rules and, for a viewer, also with this module's.

        Raises:
            SupersetSecurityException: the user may not make the request.
        """
        if not self._has(PAYLOAD_ROLE) and any(_reads_payloads(asked.get(one)) for one in DATA):
            raise _refusal(f"Only the role {PAYLOAD_ROLE} may read prompts and answers.")
        if self._has(ROLE) and not self.is_admin():
            _check(**asked)
        super().raise_for_access(**asked)

    def can_access_datasource(self, datasource: Any) -> bool:
        """Return whether the user may open dashboards and charts of the dataset."""
        if _reads_payloads(datasource) and not self._has(PAYLOAD_ROLE):
            return False
        try:
            super().raise_for_access(datasource=datasource)
        except SupersetSecurityException:
            return False
        return True

    def can_access_database(self, database: Any) -> bool:
        """Return whether the user may use the connection without a dataset."""
        if _reads_payloads(database) and not self._has(PAYLOAD_ROLE):
            return False
        return super().can_access_database(database)

    def _has(self, role: str) -> bool:
        return get_user_id() is not None and role in {one.name for one in self.get_user_roles()}


def _reads_payloads(one: Any) -> bool:
    """Return whether a connection, a dataset or a query of either reads payloads."""
    source = getattr(one, "datasource", one)
    return str(getattr(getattr(source, "database", source), "uuid", None)) == PAYLOADS


class Stored(NamedTuple):
    """The query of a stored chart or filter."""

    columns: frozenset[str]
    """Names of the dataset's columns, and the chart's own columns as JSON; `metrics` likewise."""
    metrics: frozenset[str]
    where: str = ""
    having: str = ""
    x_axis: str | None = None
    series: frozenset[str] = frozenset()
    """The columns that split a time series."""
    fill: dict[str, Any] | None = None
    """How gaps are filled; a viewer's own, shorter interval could use any amount of memory."""


def _check(*, dashboard=None, chart=None, query_context=None, **others) -> None:
    if any(one is not None for one in others.values()):
        _refuse("data other than through a chart")
    if query_context is None:
        return
    dataset = query_context.datasource
    if dataset.type != "table":
        _refuse("data other than through a dataset")
    if query_context.custom_cache_timeout is not None:
        _refuse("a result that is cached for longer")
    stored = _stored(query_context.slice_, dataset)
    filtered = _filtered(dataset)
    grains = {None, *(grain.duration for grain in dataset.database.grains())}
    if query_context.result_type not in RESULTS:
        _refuse(f"results of type {query_context.result_type}")
    for query in query_context.queries:
        _check_query(query, dataset, stored, filtered, grains)


def _check_query(
    query, dataset, stored: Stored, filtered: set[str], grains: set[str | None]
) -> None:
    if query.result_type not in RESULTS or query.datasource not in (None, dataset):
        _refuse("another result")
    if query.annotation_layers or query.time_offsets or query.time_shift:
        _refuse("annotations or other times")
    for column in [*query.columns, *query.series_columns]:
        if (
            isinstance(column, dict)
            and column.get("columnType") == "BASE_AXIS"
            and column.get("timeGrain") in grains
        ):
            # The axis of a time series: the viewer can only choose its grain.
            column = (
                column.get("sqlExpression")
                if column.get("sqlExpression") == stored.x_axis
                else column
            )
        if _text(column) not in stored.columns:
            _refuse("a column that the chart does not show")
    for metric in [*(query.metrics or []), query.series_limit_metric]:
        if metric is not None and _text(metric) not in stored.metrics:
            _refuse("a metric that the chart does not show")
    for by, _ in query.orderby:
        if _text(by) not in stored.columns | stored.metrics:
            _refuse("an order that the chart does not know")
    for one in query.filter:
        if not isinstance(one["col"], str) or one["col"] not in filtered:
            _refuse("a filter on a column that no dashboard shows")
        if one.get("grain") not in grains:
            _refuse("a time grain of your own")
    if query.granularity is not None and query.granularity not in dataset.column_names:
        _refuse("a time of your own")
    extras = {name: value for name, value in query.extras.items() if value}
    if not extras.keys() <= set(EXTRAS) or extras.get("time_grain_sqla") not in grains:
        _refuse("extras")
    if (extras.get("where", ""), extras.get("having", "")) != (stored.where, stored.having):
        _refuse("a filter in SQL")
    for step in query.post_processing:
        _check_reshaping(step, stored)


def _check_reshaping(step: dict[str, Any], stored: Stored) -> None:
    options = step.get("options") or {}
    if step.get("operation") not in RESHAPED:
        _refuse("another shape of the rows")
    if step["operation"] == "pivot" and not (
        options.get("index") == [stored.x_axis]
        and stored.series.issuperset(options.get("columns") or [])
    ):
        _refuse("another shape of the rows")
    if step["operation"] == "resample" and options != stored.fill:
        _refuse("another shape of the rows")


def _stored(chart, dataset) -> Stored:
    from superset.models.helpers import sanitize_clause

    metrics = {one.metric_name for one in dataset.metrics}
    if chart is None:
        offered = [
            one
            for one in _filters()
            if dataset.id in {target.get("datasetId") for target in one["targets"]}
        ]
        targets = {
            target["column"]["name"]
            for one in offered
            for target in one["targets"]
            if "column" in target
        }
        return Stored(
            columns=frozenset(targets & set(dataset.column_names)),
            metrics=frozenset(
                {one["sortMetric"] for one in offered if one.get("sortMetric")} & metrics
            ),
        )
    if chart.datasource != dataset:
        _refuse("another dataset than the chart's")
    if not any(one.published for one in chart.dashboards):
        _refuse("a chart that is on no published dashboard")
    settings = chart.params_dict
    named = set(_named(settings))
    own = {
        _text(one) for value in settings.values() for one in _list(value) if isinstance(one, dict)
    }
    clauses = {
        clause: " AND ".join(
            f"({one['sqlExpression']})"
            for one in settings.get("adhoc_filters") or []
            if one.get("expressionType") == "SQL" and one.get("clause") == clause
        )
        for clause in ("WHERE", "HAVING")
    }
    engine = dataset.database.db_engine_spec.engine
    return Stored(
        columns=frozenset(named & set(dataset.column_names) | own),
        metrics=frozenset(named & metrics | own),
        where=clauses["WHERE"] and sanitize_clause(clauses["WHERE"], engine),
        having=clauses["HAVING"] and sanitize_clause(clauses["HAVING"], engine),
        x_axis=settings.get("x_axis"),
        fill=_fill(settings),
        series=frozenset(one for one in settings.get("groupby") or [] if isinstance(one, str)),
    )


def _fill(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options with which a browser requests that the chart's gaps are filled."""
    rule, method = settings.get("resample_rule"), settings.get("resample_method")
    if not rule or not method:
        return None
    zero = method == "zerofill"
    return {"method": "asfreq" if zero else method, "rule": rule, "fill_value": 0 if zero else None}


def _filtered(dataset) -> set[str]:
    """Return the columns that a viewer may filter by.

    These are the columns of the dashboards' filters, and those that charts show or filter by.
    """
    from superset import db
    from superset.models.dashboard import Dashboard
    from superset.models.helpers import json_to_dict
    from superset.models.slice import Slice

    # Every request of a viewer needs them. Whole charts would take a tenth of its CPU time.
    settings = (
        db.session.query(Slice.params)
        .filter(Slice.datasource_id == dataset.id, Slice.dashboards.any(Dashboard.published))
        .all()
    )
    named = {name for one in settings for name in _named(json_to_dict(one.params))}
    shown = named & set(dataset.column_names)
    chosen = {
        target["column"]["name"]
        for one in _filters()
        for target in one["targets"]
        if "column" in target
    }
    return shown | chosen


def _filters() -> list[dict[str, Any]]:
    """Return the filters of the published dashboards, which every user may open.

    A draft is only for its editor.
    """
    from superset import db
    from superset.models.dashboard import Dashboard

    return [
        one
        for dashboard in db.session.query(Dashboard.json_metadata).filter(Dashboard.published)
        for one in json.loads(dashboard.json_metadata or "{}").get("native_filter_configuration")
        or []
    ]


def _named(value: Any) -> Iterator[str]:
    """Yield all texts in a chart's settings, some of which are names.

    It also reads orders, which are stored as JSON texts.
    """
    if isinstance(value, str):
        yield value
        if value.startswith("["):
            with suppress(ValueError):
                yield from _named(json.loads(value))
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _named(one)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(one: Any) -> str:
    return one if isinstance(one, str) else json.dumps(one, sort_keys=True)


def _refuse(what: str) -> None:
    raise _refusal(f"A viewer may request only what the dashboards request, not {what}.")


def _refusal(message: str) -> SupersetSecurityException:
    return SupersetSecurityException(
        SupersetError(
            error_type=SupersetErrorType.DATASOURCE_SECURITY_ACCESS_ERROR,
            message=message,
            level=ErrorLevel.ERROR,
        )
    )
