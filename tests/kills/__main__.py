"""`kill -9` of worker, host and mongod in turn, at random moments of running broadcasts, against real processes.

Everything runs on this machine: a replica set of one, simulated platforms, a host and two workers (or, on SQLite,
one `clarion serve`). At the end it is compared what people received with what the store says. The exit status is 0
only if nothing was lost, whatever was doubled is marked, and every account of a killed worker was taken over in
time. Otherwise the folder with the logs is kept and named.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.kills.drill import Outcome, Victim
from tests.kills.play import TAKEN_OVER_WITHIN, Wishes, play, table, troubles
from tests.kills.stage import StoreKind
from tests.mongod import MISSING, find_mongod


def main() -> int:
    options = _options()
    kind = StoreKind(options.store)
    mongod = find_mongod() if kind is StoreKind.MONGODB else None
    if kind is StoreKind.MONGODB and mongod is None:
        print(MISSING, file=sys.stderr)  # noqa: T201 - a tool prints
        return 2
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="clarion-kills-", dir=options.dir))
    wishes = Wishes(kills=options.kills, seed=seed, store=kind, people=options.people)
    _say(f"seed {seed}, {options.kills} kills, logs in {folder}")
    try:
        outcome = asyncio.run(_played(wishes, folder, mongod))
    except BaseException:
        _say(f"did not come to its end: seed {seed}, logs in {folder}")
        raise
    for line in table(outcome):
        _say(line)
    found = troubles(outcome, taken_over_within=options.takeover)
    for trouble in found:
        _say(f"FAILED  {trouble}")
    if found:
        _say(f"seed {seed}, logs in {folder}")
        return 1
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    _say("all holds")
    return 0


async def _played(wishes: Wishes, folder: Path, mongod: Path | None) -> Outcome:
    """Whoever ends it, with Ctrl-C or SIGTERM, ends what it started."""
    running = asyncio.ensure_future(play(wishes, folder, mongod, say=_say))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    victims = ", ".join(victim.value for victim in Victim if victim is not Victim.SERVE)
    parser.add_argument("--kills", type=int, default=100, help=f"how many, of {victims} in turn (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the moments, and who is hit (default: a random one, printed)")
    parser.add_argument("--store", choices=[*StoreKind], default=StoreKind.MONGODB.value, help="(%(default)s)")
    parser.add_argument("--people", type=int, default=150, help="on each of three channels (%(default)s)")
    parser.add_argument(
        "--takeover",
        type=float,
        default=TAKEN_OVER_WITHIN,
        metavar="SECONDS",
        help="in which an account has to be taken over (%(default)g)",
    )
    parser.add_argument(
        "--dir", type=Path, help="where the folder with files and logs is made (default: temporary)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder although all went well")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
