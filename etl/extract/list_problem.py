"""One-line descriptions of run lists that deviate from the API's description.

Each function names an assumption of the walk that has failed.
"""

from __future__ import annotations


def ignores_offset(offset: int, *, shown: int) -> str:
    """Describe a list that returns its head, of `shown` rows, at this offset, too."""
    return (
        f"the list returns the same rows at offset {offset:,} as at 0: runs behind its first "
        f"{shown:,} cannot be listed, unless a larger api.page_size shows them"
    )


def goes_round(offset: int) -> str:
    """Describe a list that shows known rows at this offset, where it should continue or end."""
    return f"the list repeats at offset {offset:,} what it showed before: it counts as ended there"


def counts_pages(offset: int) -> str:
    """Describe a list that shows rows at this offset that cannot be there."""
    return (
        f"at offset {offset:,} the list does not show the rows that follow those at 0: "
        "does the server take `offset` as the number of a page?"
    )


def changes_order(offset: int) -> str:
    """Describe a list that shows a new row between known rows."""
    return (
        f"the list changes its order while it is walked (at offset {offset:,}): "
        "runs may be found late"
    )


def leads_nowhere(responses: int, offset: int, *, too_large: bool) -> str:
    """Describe a list whose last responses, the latest one at this offset, showed no further run.

    Args:
        responses: number of consecutive responses without progress.
        offset: offset of the latest one.
        too_large: whether rows that are too large to be read are the cause.
    """
    why = (
        "the list has rows larger than api.max_response_bytes"
        if too_large
        else "the list grows or changes its order faster than it can be walked, does not follow "
        "`offset`, or returns other ids for the same runs in each response"
    )
    return (
        f"{responses} responses in a row, the last at offset {offset:,}, "
        f"led to no further run: {why}"
    )


def outruns_walk(restarts: int) -> str:
    """Describe a list on which the walk had to begin again `restarts` times."""
    return (
        f"the walk had to begin again {restarts} times: the list grows faster than it can be "
        "walked, or returns other ids for the same runs in each response"
    )
