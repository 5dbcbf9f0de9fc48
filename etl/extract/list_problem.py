"""What a run list does otherwise than the API says, each in one line: which assumption of the walk has failed."""

from __future__ import annotations


def ignores_offset(offset: int, *, shown: int) -> str:
    """The head is answered at this offset, too; it shows so many rows."""
    return (
        f"the list answers the same rows at offset {offset:,} as at 0: runs behind its first {shown:,} cannot be listed, "
        "unless a larger api.page_size shows them"
    )


def goes_round(offset: int) -> str:
    """There are known rows at this offset, where the list should go on or have ended."""
    return f"the list repeats at offset {offset:,} what it showed before: it is taken to end there"


def counts_pages(offset: int) -> str:
    """There are rows at this offset that cannot stand there."""
    return f"at offset {offset:,} the list shows other rows than follow those at 0: is `offset` taken as the number of a page?"


def changes_order(offset: int) -> str:
    """There is a new row between known ones."""
    return f"the list changes its order while it is walked (at offset {offset:,}): runs may be found late"


def leads_nowhere(answers: int, offset: int, *, too_large: bool) -> str:
    """So many answers in a row, the last at this offset, led to no further run."""
    why = (
        "the list has rows larger than api.max_response_bytes"
        if too_large
        else "the list grows or changes its order faster than it can be walked, does not follow `offset`, or gives runs other "
        "ids in each answer"
    )
    return (
        f"{answers} answers in a row, the last at offset {offset:,}, led to no further run: {why}"
    )


def outruns_walk(restarts: int) -> str:
    """The walk had to begin again so often."""
    return (
        f"the walk had to begin again {restarts} times: the list grows faster than it can be walked, or gives runs other ids "
        "in each answer"
    )
