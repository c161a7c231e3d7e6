"""Memory of a process that runs for weeks."""

from __future__ import annotations

import gc

#: The collector looks at new objects once there are so many more of them than were let go; Python's own 700 is a
#: few dozen deliveries, of which nearly all are still needed. Cycles are rare here.
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 100


def settle() -> None:
    """Called once start-up is over: what it made, modules above all, lives as long as the process, and the garbage
    collector need not look at it again and again, nor at what was made just now. Sending costs an eighth less for
    it (bench/bench_engine.py)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
