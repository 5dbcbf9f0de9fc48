"""Why calls have no cost, and how the cost of one call is computed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec
from sqlalchemy import Connection, text

from etl.analytics.price_lists import Price
from etl.analytics.prices import COLUMNS, MODELS, price_of
from etl.usage import BITS, CALLS, KINDS, STANDARD


class UnpricedReason(msgspec.Struct, frozen=True):
    """Calls that have no cost because something has no price."""

    reason: str
    """One of:

    - the name of a price without a value, such as `web_searches`;
    - `service_tier …`: the model has a price, but not for this service tier;
    - `model`: the model has no price for these calls;
    - `usage`: the calls report no usage.
    """
    calls: int


class ModelUsage(msgspec.Struct, frozen=True):
    """The number of calls of a model, and why some have no cost."""

    model: str | None
    """None: the calls name no model."""
    calls: int
    unpriced_calls: int
    """Calls without a cost, as in the view `model_usage`.

    There is no price for their day, service tier and input length, or a part of their usage has no
    price, or they report no usage.
    """
    unpriced_reasons: list[UnpricedReason]
    """A call counts once for each price that it lacks."""


class CostPart(msgspec.Struct, frozen=True):
    """A kind of usage of a call, without its parts that have prices of their own."""

    kind: str
    quantity: int
    price: Decimal | None
    """None: unknown."""
    per: int
    """The number of units that the price is for."""
    cost: Decimal | None


class CostExplanation(msgspec.Struct, frozen=True):
    """How the cost of a step is computed."""

    step_id: str
    run_id: str
    node_id: str | None
    model: str | None
    day: date
    """The day (UTC) whose price applies."""
    service_tier: str
    input_tokens: int | None
    is_call: bool
    is_unmetered: bool
    """Whether the step is a call that reports no usage."""
    is_absent: bool
    """Whether the API no longer shows the step. Views and rollups leave it out."""
    price: Price | None
    parts: list[CostPart]
    cost: Decimal | None
    currency: str | None
    reported_cost: Decimal | None
    """The cost that the provider reports, in US dollars."""
    difference: Decimal | None
    """The cost minus the reported cost, in US dollars.

    None if either is missing, or if the cost is in another currency.
    """
    why_none: list[str]
    """Why there is no cost, in words; empty if there is a cost."""


# The kinds without a price, as a bit mask.
_LACKING = " + ".join(
    f"CASE WHEN {kind.price_column} IS NULL THEN {BITS[kind.name]} ELSE 0 END" for kind in KINDS
)
# All calls of a row have the same kinds of usage and the same price, so they lack the same prices.
_USAGE = text(f"""
    WITH c AS (
        SELECT d.model, d.service_tier, d.context_tier, d.day, d.usage_kinds AS kinds,
               sum(d.calls) AS calls, sum(d.unmetered_calls) AS unmetered
        FROM orchestra.step_rollup_daily AS d
        WHERE d.calls > 0
        GROUP BY 1, 2, 3, 4, 5
    ), p AS MATERIALIZED (
        SELECT model, prices AS price, {_LACKING} AS lacking
        FROM orchestra.prices
    ), judged AS (
        SELECT c.model, COALESCE(c.service_tier, '{STANDARD}') AS service_tier,
               p.model IS NOT NULL AS is_priced, known.model IS NOT NULL AS is_known,
               COALESCE(c.kinds & p.lacking, 0) AS lacking, sum(c.calls) AS calls,
               sum(c.unmetered) AS unmetered
        FROM c
        LEFT JOIN p
          ON p.model = c.model
         AND orchestra.price_applies(p.price, c.service_tier, c.context_tier,
                                     CAST(c.day AS timestamp) AT TIME ZONE 'UTC')
        LEFT JOIN (SELECT DISTINCT model FROM p) AS known ON known.model = c.model
        GROUP BY 1, 2, 3, 4, 5
    ), totalled AS (
        SELECT *, sum(calls) OVER (PARTITION BY model) AS total FROM judged
    )
    SELECT model, service_tier, is_priced, is_known, lacking, CAST(calls AS bigint),
           CAST(unmetered AS bigint)
    FROM (SELECT *, dense_rank() OVER (ORDER BY total DESC, model COLLATE "C") AS number
          FROM totalled) AS numbered
    WHERE number <= :models
    ORDER BY model COLLATE "C", service_tier COLLATE "C", lacking
""")

_BEYOND = text("""
    SELECT count(*), CAST(COALESCE(sum(calls), 0) AS bigint)
    FROM (SELECT sum(calls) AS calls,
                 row_number() OVER (ORDER BY sum(calls) DESC, model COLLATE "C") AS number
          FROM orchestra.step_rollup_daily WHERE calls > 0 GROUP BY model) AS named
    WHERE number > :models
""")

_CALL = f"""
    FROM (
        SELECT s.id, s.run_id, s.node_id, u.model, u.outcome, u.used, u.has_usage, s.service_tier,
               s.reported_cost, orchestra.context_tier((u.used).input_tokens) AS context_tier,
               COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
               s.absent_since IS NOT NULL AS is_absent,
               orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
                   AS is_call
        FROM orchestra.steps AS s
        JOIN orchestra.runs AS r ON r.id = s.run_id
        CROSS JOIN LATERAL (
            SELECT COALESCE(s.response_model, s.request_model) AS model,
                   orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                   orchestra.plausible_usage(raw.used) AS used,
                   orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage
            FROM (
                SELECT CAST(ROW({", ".join(f"s.{kind.name}" for kind in KINDS)}) AS orchestra.usage)
                           AS used
            ) AS raw
        ) AS u
        WHERE s.id = :step_id
    ) AS c
    LEFT JOIN orchestra.prices AS p
      ON p.model = c.model
     AND orchestra.price_applies(p, c.service_tier, c.context_tier, c.time)
"""

_EXPLAINED = text(f"""
    SELECT c.id, c.run_id, c.node_id, c.model, CAST(c.time AT TIME ZONE 'UTC' AS date),
           COALESCE(c.service_tier, '{STANDARD}'), (c.used).input_tokens, c.is_call,
           orchestra.is_unmetered(c.outcome, c.is_call, c.has_usage, c.used), c.is_absent,
           c.reported_cost, EXISTS (SELECT FROM orchestra.prices AS o WHERE o.model = c.model),
           {", ".join(f"p.{name}" for name in COLUMNS)}
    {_CALL}
""")

_PARTS = text(f"""
    SELECT parts.kind, parts.quantity, parts.price, parts.per, parts.cost
    {_CALL}
    CROSS JOIN LATERAL orchestra.cost_parts(c.used, 1, p) AS parts
""")
_NAMES = {kind.name: kind.price for kind in (*KINDS, CALLS)}


def usage(connection: Connection) -> list[ModelUsage]:
    """Return the calls of the `MODELS` most called models, and why some have no cost."""
    found: dict[str | None, ModelUsage] = {}
    for model, tier, is_priced, is_known, bits, calls, unmetered in connection.execute(
        _USAGE, {"models": MODELS}
    ):
        what, unpriced = [kind.price for kind in KINDS if bits & BITS[kind.name]], calls
        if not is_priced:
            what = [f"service_tier {tier}" if is_known and tier != STANDARD else "model"]
        elif not what:
            what, unpriced = (["usage"] if unmetered else []), unmetered
        known = found.get(model, ModelUsage(model, 0, 0, []))
        found[model] = ModelUsage(
            model,
            known.calls + calls,
            known.unpriced_calls + unpriced,
            _added(known.unpriced_reasons, what, unpriced),
        )
    return list(found.values())


def beyond(connection: Connection) -> tuple[int, int]:
    """Return the number of models that `usage` leaves out, and the number of their calls."""
    models, calls = connection.execute(_BEYOND, {"models": MODELS}).one()
    return models, calls


def explain(connection: Connection, step_id: str) -> CostExplanation | None:
    """Return how the cost of this step is computed; None if the step does not exist."""
    row = connection.execute(_EXPLAINED, {"step_id": step_id}).one_or_none()
    if row is None:
        return None
    (
        step,
        run,
        node,
        model,
        day,
        tier,
        input_tokens,
        is_call,
        is_unmetered,
        is_absent,
        reported,
        is_known,
        *priced,
    ) = row
    price = None if priced[0] is None else price_of(priced)
    parts = _parts(connection, step_id) if is_call else []
    is_unmetered = is_unmetered and not parts
    reasons = _reasons(
        model=model,
        tier=tier,
        day=day,
        is_call=is_call,
        is_unmetered=is_unmetered,
        is_known=is_known,
        price=price,
        parts=parts,
    )
    cost = (
        None if reasons else sum((part.cost for part in parts if part.cost is not None), Decimal(0))
    )
    in_dollars = price is not None and price.currency == "USD"
    return CostExplanation(
        step_id=step,
        run_id=run,
        node_id=node,
        model=model,
        day=day,
        service_tier=tier,
        input_tokens=input_tokens,
        is_call=is_call,
        is_unmetered=is_unmetered,
        is_absent=is_absent,
        price=price,
        parts=parts,
        cost=cost,
        currency=price.currency if price is not None and cost is not None else None,
        reported_cost=reported,
        difference=cost - reported
        if cost is not None and reported is not None and in_dollars
        else None,
        why_none=reasons,
    )


def _parts(connection: Connection, step_id: str) -> list[CostPart]:
    rows = connection.execute(_PARTS, {"step_id": step_id})
    return [CostPart(_NAMES[kind], *others) for kind, *others in rows]


def _reasons(
    model: str | None,
    tier: str,
    day: date,
    is_call: bool,
    is_unmetered: bool,
    is_known: bool,
    price: Price | None,
    parts: Sequence[CostPart],
) -> list[str]:
    if not is_call:
        return ["the step is not a model call"]
    if model is None:
        return ["the call names no model"]
    if is_unmetered:
        return ["the call reports no usage"]
    if price is None:
        if not is_known:
            return ["the model has no price"]
        return [f"the model has no price for service tier {tier} on {day}"]
    return [f"no price for {part.kind}" for part in parts if part.price is None]


def _added(
    unpriced_reasons: list[UnpricedReason], what: list[str], calls: int
) -> list[UnpricedReason]:
    counts = {one.reason: one.calls for one in unpriced_reasons}
    for one in what:
        counts[one] = counts.get(one, 0) + calls
    return [UnpricedReason(one, number) for one, number in counts.items()]
