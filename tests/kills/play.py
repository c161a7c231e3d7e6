"""A drill from nothing to its table of figures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from broadcast.model import DeliveryState
from tests.kills.drill import Drill, Outcome, Say, Victim
from tests.kills.stage import StoreKind, staged

#: Seconds from a worker's death until somebody drives its accounts, as docs/operations.md promises.
TAKEN_OVER_WITHIN = 10.0

_VICTIMS = {
    StoreKind.MONGODB: (Victim.WORKER, Victim.HOST, Victim.MONGOD),
    StoreKind.SQLITE: (Victim.SERVE,),
}
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a drill is to be. `people` on each of the three channels."""

    kills: int
    seed: int
    store: StoreKind = StoreKind.MONGODB
    people: int = 150


async def play(wishes: Wishes, folder: Path, mongod: Path | None, *, say: Say) -> Outcome:
    """One drill in a folder of its own."""
    victims = list(itertools.islice(itertools.cycle(_VICTIMS[wishes.store]), wishes.kills))
    async with staged(folder, wishes.store, mongod, people=wishes.people, seed=wishes.seed) as stage:
        return await Drill(stage, wishes.seed, victims, say).run()


def troubles(outcome: Outcome, *, taken_over_within: float = TAKEN_OVER_WITHIN) -> list[str]:
    """Whatever does not hold, in words."""
    found = []
    for name, faults in outcome.verdict.faults.items():
        found += [f"{name}: {fault}" for fault in faults[:_SHOWN]]
        if len(faults) > _SHOWN:
            found.append(f"{name}: and {len(faults) - _SHOWN} more")
    for kill in outcome.kills:
        late = {account: took for account, took in kill.takeovers.items() if took > taken_over_within}
        # a `clarion serve` that is alone is started again, not taken over
        if late and kill.victim is Victim.WORKER and not kill.outage:
            found.append(f"taken over late: after kill {kill.number}, {late}")
    return found


def table(outcome: Outcome) -> Iterator[str]:
    """The figures, a line each."""
    verdict, kills = outcome.verdict, Counter(kill.victim for kill in outcome.kills)
    rows = {
        "kills": ", ".join(f"{number} {victim}" for victim, number in kills.items()),
        "broadcasts": outcome.broadcasts,
        "deliveries": verdict.deliveries,
        **{f"  {state}": number for state in DeliveryState if (number := verdict.states[state])},
        "lost": len(verdict.lost),
        "in flight at the kills": verdict.in_flight,
        "doubles (copies beyond the first)": verdict.copies,
        "marked as possibly doubled": verdict.marked,
        "doubles unmarked": len(verdict.unmarked) + len(verdict.held_twice),
        "people who said STOP": outcome.stopped,
        "sent after STOP": len(verdict.after_stop),
        "takeover": _times(outcome.takeovers),
        **{
            f"goes on after a {victim} died": _times(
                [k.again for k in outcome.kills if k.victim is victim and k.again and not k.outage]
            )
            for victim in kills
        },
        "processes that ended by themselves": outcome.ended_by_themselves,
        "lasted": f"{outcome.seconds:.0f} s",
    }
    width = max(map(len, rows))
    yield ""
    for name, value in rows.items():
        yield f"{name:<{width}}  {value}"


def _times(seconds: list[float]) -> str:
    return f"median {median(seconds):.1f} s, longest {max(seconds):.1f} s" if seconds else "-"
