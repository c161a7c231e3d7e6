"""Replays broken worlds by their seeds: ``python -m tests.faults SEED…``."""

from __future__ import annotations

import sys

from tests.faults.world import check

if __name__ == "__main__":
    for seed in map(int, sys.argv[1:]):
        world = check(seed)
        print(f"seed {seed}: all holds for {len(world.people)} people")  # noqa: T201 - a tool prints
