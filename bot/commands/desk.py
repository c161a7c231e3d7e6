"""What admins can do by writing to the bot: a door to the same use cases as the endpoint's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from bot.commands import words
from bot.commands.tickets import VALID, Choice, Tickets
from bot.commands.words import Command, Incomplete, Launch, ListCampaigns, Press, Status, Try
from bot.forecast import in_chat
from bot.intake import Deed
from bot.settings import Admin
from broadcast import calendar, inbox, report
from broadcast.campaigns import Campaigns
from broadcast.errors import ClarionError, NotFound
from broadcast.forecast import Forecast
from broadcast.model import (
    Broadcast,
    BroadcastKind,
    BroadcastStatus,
    Campaign,
    ChannelName,
    DeliveryState,
    Recipient,
)
from broadcast.ports import Account, Clock, Content, Page, ReadyButton, Store
from broadcast.report import ChannelLine, Signal

log = structlog.get_logger(__name__)

_NOT_REPORTED = "not reported"
_LISTED = 10

#: A forecast, or ``None`` while it is being worked out; see `bot.forecast.Forecasts.soon`.
Foretell = Callable[[Campaign], Awaitable[Forecast | None]]


@dataclass(frozen=True, slots=True)
class Asker:
    """The admin who writes, and who they are as a recipient."""

    admin: Admin
    recipient: Recipient

    def __str__(self) -> str:
        return f"{self.admin.channel}:{self.admin.user_id}"


class CommandDesk:
    """Answers admins; to everybody else it says nothing at all."""

    def __init__(
        self,
        store: Store,
        campaigns: Campaigns,
        *,
        clock: Clock,
        secret: str,
        admins: Collection[Admin],
        accounts: Mapping[str, Account],
        foretell: Foretell,
    ) -> None:
        self._store = store
        self._campaigns = campaigns
        self._clock = clock
        self._foretell = foretell
        self._tickets = Tickets(secret=secret, clock=clock)
        self._admins = frozenset(_folded(admin) for admin in admins)
        self._features = {account.channel: account.features for account in accounts.values()}

    async def answer(self, deed: Deed) -> Content | None:
        """See `Desk.answer`."""
        asker = self._asker(deed)
        if asker is None:
            return None
        if deed.handled.answer == inbox.HELP:
            return Content(words.HELP)
        command = words.parse(deed.handled.command or "")
        return None if command is None else await self.act(command, asker)

    async def act(self, command: Command, asker: Asker) -> Content:
        """Does it, or says in words why not."""
        try:
            return await self._acted(command, asker)
        except ClarionError as error:
            return Content(_sentence(str(error)))
        except Exception:
            log.exception("a command failed", action="command_failed", command=type(command).__name__)
            return Content("That did not work, and it is our fault. The log has more.")

    def _asker(self, deed: Deed) -> Asker | None:
        admin = _folded(Admin(deed.inbound.channel, deed.inbound.person.user_id))
        return Asker(admin, deed.handled.recipient) if admin in self._admins else None

    async def _acted(self, command: Command, asker: Asker) -> Content:
        match command:
            case ListCampaigns():
                return await self._list()
            case Try(name):
                return await self._try(name, asker)
            case Launch(name, confirmed):
                return await self._launch(name, asker, confirmed=confirmed)
            case Status(name):
                return await self._status(name)
            case Press(ticket):
                return await self._pressed(ticket, asker)
            case Incomplete(mend):
                return Content(mend)

    # --- looking --------------------------------------------------------------------------------------

    async def _list(self) -> Content:
        listing = await self._store.campaigns(status=None, q="", channel=None, page=Page(1, _LISTED))
        if not listing.items:
            return Content("There are no campaigns yet.")
        lines = [_campaign_line(campaign) for campaign in listing.items]
        if listing.total > len(lines):
            lines.append(f"… and {listing.total - len(lines)} more")
        return Content("\n".join(lines))

    async def _status(self, name: str) -> Content:
        campaign = await self._campaigns.named(name)
        latest = await self._store.broadcasts(kind=BroadcastKind.CAMPAIGN, campaign=campaign.id, page=Page(1, 1))
        if not latest.items:
            return Content(f"{campaign.name} has not been launched. Write /launch {campaign.name} to launch it.")
        return Content(await self._progress(latest.items[0]))

    async def _progress(self, broadcast: Broadcast) -> str:
        tally = await self._store.tally(broadcast.id)
        numbers = report.report(broadcast, tally, reporting=self._features, as_of=self._clock.now())
        lines = [_headline(broadcast, report.progress(tally))]
        lines += [_channel_line(line) for line in numbers.channels]
        lines += _reason_lines(numbers)
        if broadcast.finished_at is not None:
            lines.append(f"Ended {_local(broadcast.finished_at, broadcast.schedule.timezone)}")
        elif broadcast.expected_finish_at is not None:
            when = _local(broadcast.expected_finish_at, broadcast.schedule.timezone)
            lines.append(f"Expected to finish by {when}")
        return "\n".join(lines)

    # --- doing ----------------------------------------------------------------------------------------

    async def _try(self, name: str, asker: Asker) -> Content:
        campaign = await self._campaigns.named(name)
        await self._campaigns.try_out(campaign.id, to=asker.recipient, by=str(asker))
        return Content(f"{campaign.name} is on its way to you.")

    async def _launch(self, name: str, asker: Asker, *, confirmed: bool) -> Content:
        if not confirmed:
            return await self._ask(await self._campaigns.named(name), asker)
        try:  # a campaign may be called so
            literal = await self._campaigns.named(f"{name} confirm")
        except NotFound:
            return await self._launched(await self._campaigns.named(name), asker)
        return await self._ask(literal, asker)

    async def _ask(self, campaign: Campaign, asker: Asker) -> Content:
        faults = await self._campaigns.launch_faults(campaign)
        if faults:
            return Content("\n".join([f"{campaign.name} cannot be launched:", *(f"- {fault}" for fault in faults)]))
        people = await self._campaigns.estimate(campaign.audience)
        lines = [
            f"Launch {campaign.name}?",
            f"About {people} {'person' if people == 1 else 'people'} now (settled at the start)",
            *_when(campaign, self._clock.now()),
            *await self._forecast(campaign),
        ]
        if campaign.broadcasts:
            lines.append(f"It was launched {_times(campaign.broadcasts)} before.")
        return Content("\n".join(lines), buttons=self._buttons(campaign, asker))

    async def _forecast(self, campaign: Campaign) -> list[str]:
        """A forecast that fails keeps nobody from launching."""
        try:
            return in_chat(await self._foretell(campaign), campaign)
        except Exception:
            log.exception("no forecast", action="forecast_failed", campaign=campaign.id)
            return ["There is no forecast: it failed, and the log has more"]

    def _buttons(self, campaign: Campaign, asker: Asker) -> tuple[ReadyButton, ...]:
        labels = {Choice.YES: "Launch now", Choice.NO: "Cancel"}
        return tuple(
            ReadyButton(label, payload=self._tickets.write(choice, campaign, asker.admin))
            for choice, label in labels.items()
        )

    async def _pressed(self, payload: str, asker: Asker) -> Content:
        ticket = self._tickets.read(payload)
        if ticket is None:
            return Content("This button is none of ours.")
        campaign = await self._campaigns.get(ticket.campaign)
        if not self._tickets.holds(ticket, campaign, asker.admin):
            minutes = int(VALID.total_seconds() // 60)
            return Content(
                f"This button no longer holds: it is for whoever asked, for {minutes} minutes, and while the "
                f"campaign stays as it was. Write /launch {campaign.name} to ask again."
            )
        if not await self._store.first_time("clarion/tickets", ticket.question, self._clock.now()):
            return Content("That question has been answered.")
        if ticket.choice is Choice.NO:
            return Content(f"{campaign.name} is not launched.")
        return await self._launched(campaign, asker)

    async def _launched(self, campaign: Campaign, asker: Asker) -> Content:
        broadcast = await self._campaigns.launch(campaign.id, by=str(asker))
        log.info("launched by chat", action="campaign_launched", broadcast=broadcast.id, by=str(asker))
        starts = _local(broadcast.starts_at, broadcast.schedule.timezone)
        return Content(
            f"{campaign.name} is launched; it starts {starts}. /status {campaign.name} tells how it goes."
        )


def _folded(admin: Admin) -> Admin:
    """Entra object ids are the same in any case."""
    return Admin(admin.channel, admin.user_id.lower()) if admin.channel is ChannelName.TEAMS else admin


# --- in words -----------------------------------------------------------------------------------------


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "?", "!")) else ".")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _campaign_line(campaign: Campaign) -> str:
    if not campaign.broadcasts:
        return f"{campaign.name}: {campaign.status}"
    return f"{campaign.name}: {campaign.status} {_times(campaign.broadcasts)}"


def _when(campaign: Campaign, now: datetime) -> list[str]:
    schedule = calendar.with_holidays(campaign.schedule, launched_at=now)
    working = calendar.working_time(schedule, calendar.zone(schedule.timezone), not_before=now)
    days = f"{schedule.working_days} working day{'s' if schedule.working_days > 1 else ''}"
    zone = "each person's own time zone" if schedule.recipient_timezone else schedule.timezone
    begins = "at once" if schedule.immediate else _local(working.begins, schedule.timezone)
    return [f"Starts {begins}", f"Over {days}, in {zone}"]


def _local(instant: datetime, zone: str) -> str:
    return f"{instant.astimezone(calendar.zone(zone)):%a %d %b %Y, %H:%M} ({zone})"


def _headline(broadcast: Broadcast, progress: float) -> str:
    reason = f" ({broadcast.reason.value.replace('_', ' ')})" if broadcast.reason else ""
    if broadcast.status is BroadcastStatus.SCHEDULED:
        return f"{broadcast.name}: starts {_local(broadcast.starts_at, broadcast.schedule.timezone)}"
    people = "" if broadcast.planned is None else f", {broadcast.planned} people, {progress:.0%} done"
    return f"{broadcast.name}: {broadcast.status}{reason}{people}"


def _channel_line(line: ChannelLine) -> str:
    return (
        f"{line.channel.title()}: {line.sent} of {line.planned} sent"
        f", delivered {_shown(line.delivered)}, read {_shown(line.read)}, clicked {_shown(line.clicked)}"
        + (f", failed {line.failed}" if line.failed else "")
    )


def _shown(signal: Signal | None) -> str:
    return _NOT_REPORTED if signal is None else str(signal.people)


def _reason_lines(numbers: report.Report) -> list[str]:
    ended = [line for line in numbers.reasons if line.people and line.state is not DeliveryState.SENT]
    if not ended:
        return []
    return ["Not sent: " + ", ".join(f"{line.people} {line.reason.value.replace('_', ' ')}" for line in ended)]
