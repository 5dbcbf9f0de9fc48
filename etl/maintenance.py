"""Work on stored rows. Each function ends by bringing the prices up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from etl.analytics import price_lists, prices, rollups
from etl.database import Database
from etl.settings import Settings
from etl.settings.prices import PriceSettings

# Only some commands use what these import. Imported here, they would delay the start of all.
if TYPE_CHECKING:
    from etl.admin.expired import Horizons
    from etl.admin.rebuild import RebuildReport
    from etl.admin.redaction import RedactionReport
    from etl.admin.retention import PruneReport
    from etl.export.exported_runs import ExportedRuns
    from etl.transform.redact import Redaction

T = TypeVar("T")


async def refresh_rollups(
    settings: Settings,
    database: Database,
    stopped: Callable[[], bool] = lambda: False,
    *,
    settled: float = 0.0,
) -> rollups.RefreshReport:
    """Bring the rollups up to date with the steps, and the prices with the models, in a thread.

    The work ends early once `stopped` returns True. Days that have changed in the last `settled`
    seconds are left out.

    Raises:
        DatabaseError: the database cannot be used.
    """
    return await _priced(
        settings,
        database,
        partial(rollups.drain, database, settled=settled, stopped=stopped),
        stopped,
    )


async def prune(
    settings: Settings,
    database: Database,
    wanted: Horizons,
    *,
    may_remove: ExportedRuns | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> PruneReport:
    """Remove rows older than these horizons; end early once `stopped` returns True.

    Raises:
        DatabaseError: the database cannot be used.
    """
    from etl.admin import retention

    work = partial(retention.prune, database, wanted, may_remove=may_remove, stopped=stopped)
    return await _priced(settings, database, work, stopped)


async def redact_stored(
    settings: Settings,
    database: Database,
    rules: Redaction,
    *,
    workflows: Sequence[str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> RedactionReport:
    """Apply redaction rules to the stored rows of these workflows, or of all.

    The work ends early once `stopped` returns True.

    Raises:
        DatabaseError: the database cannot be used.
    """
    from etl.admin import redaction

    work = partial(redaction.redact_stored, database, rules, workflows=workflows, stopped=stopped)
    return await _priced(settings, database, work, stopped)


async def rebuild_stored(
    settings: Settings,
    database: Database,
    only: Sequence[str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> RebuildReport:
    """Rebuild the derived columns of these workflows, or of all, from the stored steps.

    The work ends early once `stopped` returns True.

    Raises:
        DatabaseError: the database cannot be used.
        SchemaMismatch: another version of the program has the newest rules.
    """
    from etl.admin import rebuild

    return await _priced(
        settings, database, partial(rebuild.rebuild, database, only=only, stopped=stopped), stopped
    )


async def _priced(
    settings: Settings, database: Database, work: Callable[[], T], stopped: Callable[[], bool]
) -> T:
    """Run work that refreshes the rollups in a thread, then bring the prices up to date."""
    done = await asyncio.to_thread(work)
    if not stopped():
        await asyncio.to_thread(resolve_prices, settings, database)
    return done


def resolve_prices(settings: Settings, database: Database) -> int:
    """Bring the prices up to date with the rules and the models in the stored steps.

    Returns the number of prices written or removed.

    Raises:
        DatabaseError: the database cannot be used.
    """
    rules = [price_rule(one) for one in settings.prices]
    return database.transaction(lambda c: prices.resolve(c, rules))


def price_rule(setting: PriceSettings) -> price_lists.PriceRule:
    """Return the rule of a price from the configuration or from `prices set`."""
    return price_lists.PriceRule(
        model=setting.model,
        currency=setting.currency,
        amounts=setting.amounts,
        provider=setting.provider,
        valid_from=setting.valid_from or price_lists.ALWAYS,
        service_tier=setting.service_tier,
        above_input_tokens=setting.above_input_tokens,
    )
