"""Whatever breaks, the promises hold: thousands of worlds, each with its own troubles."""

from __future__ import annotations

import pytest

from tests.faults.world import check

WORLDS = 3_000
BATCH = 150


@pytest.mark.parametrize("first", range(0, WORLDS, BATCH))
def test_promises_hold_whatever_breaks(first: int) -> None:
    """Nobody twice unlisted, nobody lost, nothing outside hours or after an opt-out, rates kept, counters right."""
    for seed in range(first, first + BATCH):
        try:
            check(seed)
        except Exception as error:
            error.add_note(f"replay with: python -m tests.faults {seed}")
            raise
