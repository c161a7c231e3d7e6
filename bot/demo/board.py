"""What the demo shows: a live board while the broadcast runs, the report when it is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broadcast.model import Broadcast, ChannelName, Delivery, Recipient
from broadcast.report import ChannelLine, Report, Signal

NOT_REPORTED = "not reported"
NOTHING = "-"
TITLES = {ChannelName.TEAMS: "Teams", ChannelName.TELEGRAM: "Telegram", ChannelName.VIBER: "Viber"}
#: How many of those not reached are named one by one.
NAMED = 12

_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the running broadcast. `progress` is the share of deliveries that has an end; `absent` how many
    wait for their next rung, by channel."""

    at: datetime
    zone: ZoneInfo
    broadcast: Broadcast
    report: Report
    progress: float
    absent: Mapping[ChannelName, int]

    @property
    def clock(self) -> str:
        return f"{self.at.astimezone(self.zone):%a %d %b %H:%M}"

    @property
    def mood(self) -> str:
        """What is going on, in two or three words."""
        if self.broadcast.status != "running":
            return str(self.broadcast.status)
        hours = self.broadcast.schedule.hours.get(self.at.astimezone(self.zone).weekday(), ())
        local = self.at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return "sending" if any(w.start <= minute < w.end for w in hours) else "quiet hours"


def live(moment: Moment) -> RenderableType:
    """The board: a row of numbers and a bar per channel."""
    table = Table(expand=True, box=None, padding=(0, 1), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("done", ratio=1, no_wrap=True)
    for name in ("planned", "sent", "delivered", "read", "clicked", "absent now", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in moment.report.channels:
        table.add_row(*_live_row(line, moment))
    title = f"[bold]{moment.broadcast.name}[/bold]  ·  {moment.clock}  ·  {moment.mood}"
    done = f"{100 * moment.progress:.0f} % have an end"
    return Panel(table, title=title, subtitle=done, border_style="cyan", padding=(1, 1))


def _live_row(line: ChannelLine, moment: Moment) -> Iterator[RenderableType]:
    open_ones = line.planned - line.sent - line.failed - line.unscheduled - line.skipped
    yield TITLES[line.channel]
    yield ProgressBar(total=max(1, line.planned), completed=line.planned - open_ones, complete_style="green")
    yield str(line.planned)
    yield Text(str(line.sent), style="green")
    for signal in (line.delivered, line.read, line.clicked):
        yield _signal(signal)
    yield Text(str(moment.absent.get(line.channel, 0)), style="yellow")
    yield Text(str(line.failed), style="red" if line.failed else "dim")


def _signal(signal: Signal | None) -> Text:
    return Text(NOTHING, style="dim") if signal is None else Text(str(signal.people))


def draw(path: Path, shown: Sequence[RenderableType]) -> None:
    """Saves what a terminal shows as an SVG picture."""
    console = Console(record=True, width=100, file=StringIO(), force_terminal=True)
    console.print("[bold]$ clarion demo[/bold]\n")
    for part in shown:
        console.print(part)
    svg = console.export_svg(title="clarion demo")
    path.write_text(_FONTS.sub("", svg), encoding="utf-8")  # a picture fetches nothing from elsewhere


def plain(moment: Moment) -> str:
    """The same on one line, for where there is no terminal."""
    cells = [
        f"{TITLES[line.channel]} {line.sent}/{line.planned} sent, {moment.absent.get(line.channel, 0)} absent now"
        for line in moment.report.channels
    ]
    return f"{moment.clock}  {moment.mood:<12} {'  |  '.join(cells)}"


# --- the report ---------------------------------------------------------------------------------------

Missed = Sequence[tuple[Delivery, Recipient]]


def final(moment: Moment, missed: Missed) -> RenderableType:
    """The funnel per channel, attempts per round and rung, who was not reached and why."""
    return Group(
        Text(),
        Text(f"Report: {moment.broadcast.name}", style="bold"),
        _funnel(moment.report),
        Text(),
        _rungs(moment.report),
        Text(),
        _unreached(missed),
    )


def _funnel(report: Report) -> Table:
    """A column per channel, so that it fits a narrow terminal."""
    table = Table(title="Funnel per channel (people)", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    for line in report.channels:
        table.add_column(TITLES[line.channel], justify="right", min_width=len(NOT_REPORTED))
    for title, cell in _STAGES:
        table.add_row(title, *(cell(line) for line in report.channels))
    return table


def _share(signal: Signal | None) -> str:
    if signal is None:
        return NOT_REPORTED
    percent = f" ({100 * signal.people / signal.reported_by:.0f} %)" if signal.reported_by else ""
    return f"{signal.people}{percent}"


_STAGES: tuple[tuple[str, Callable[[ChannelLine], str]], ...] = (
    ("planned", lambda line: str(line.planned)),
    ("sent", lambda line: str(line.sent)),
    ("delivered", lambda line: _share(line.delivered)),
    ("read", lambda line: _share(line.read)),
    ("clicked", lambda line: _share(line.clicked)),
    ("failed", lambda line: str(line.failed)),
    ("absent to the end", lambda line: str(line.unscheduled)),
    ("skipped", lambda line: str(line.skipped)),
)


def _rungs(report: Report) -> Table:
    table = Table(title="Attempts per round and rung", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for name in ("round", "rung"):
        table.add_column(name)
    for name in ("attempts", "sent", "absent"):
        table.add_column(name, justify="right")
    for line in report.rounds:
        table.add_row(str(line.round), line.rung, str(line.attempts), str(line.sent), str(line.absent))
    return table


def _unreached(missed: Missed) -> RenderableType:
    if not missed:
        return Text("Everybody was reached.", style="green")
    table = Table(title="Who was not reached, and why", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for name in ("person", "channel", "why", "attempts"):
        table.add_column(name)
    for delivery, recipient in missed[:NAMED]:
        table.add_row(
            recipient.name or recipient.id,
            TITLES[delivery.channel] if delivery.channel else NOTHING,
            _why(delivery),
            str(delivery.attempts),
        )
    if len(missed) > NAMED:
        table.add_row(f"and {len(missed) - NAMED} more", "", _counted(delivery for delivery, _ in missed), "")
    return table


def _why(delivery: Delivery) -> str:
    return f"{delivery.state}: {delivery.reason}" if delivery.reason else str(delivery.state)


def _counted(deliveries: Iterable[Delivery]) -> str:
    counts: dict[str, int] = {}
    for delivery in deliveries:
        counts[_why(delivery)] = counts.get(_why(delivery), 0) + 1
    return ", ".join(f"{number} {why}" for why, number in sorted(counts.items(), key=lambda item: -item[1]))
