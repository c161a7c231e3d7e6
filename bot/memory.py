"""Memory of a process that runs for weeks."""

from __future__ import annotations

import gc


def settle() -> None:
    """Called once start-up is over: what it made, modules above all, lives as long as the process, and the garbage
    collector need not look at it again and again. Sending costs an eighth less for it (bench/bench_engine.py)."""
    gc.collect()
    gc.freeze()
