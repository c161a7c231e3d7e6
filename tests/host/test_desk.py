"""Commands of admins, from the words they write to what happens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from bot.chance import SystemChance
from bot.commands.desk import Asker, CommandDesk
from bot.commands.tickets import VALID
from bot.commands.words import HELP
from bot.forecast import Forecasts, Rehearse
from bot.intake import Deed
from bot.settings import Admin
from broadcast.campaigns import Campaigns, Draft
from broadcast.forecast import Preparing
from broadcast.inbox import Reception
from broadcast.launching import Launching
from broadcast.model import (
    Audience,
    BroadcastKind,
    CampaignStatus,
    ChannelName,
    Message,
    Schedule,
)
from broadcast.ports import Content, Page, Said
from broadcast.rehearsal import Run, Stage
from storage.memory import MemoryStore
from tests.channels.clocks import StillClock
from tests.forecast.foretold import beside
from tests.host.stage import ANN, AT_ONCE, Recorder, accounts, add_ann, said

ADMIN = Admin(ChannelName.TELEGRAM, ANN)


class Office:
    """Ann, an admin who writes to the bot, and Bob, who is none."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = StillClock()
        self.chance = SystemChance()
        self.usable = accounts(Recorder()).usable
        self.campaigns = Campaigns(self.store, self.clock, self.chance, self.usable)
        self.reception = Reception(self.store, self.clock, self.chance)
        self.foretelling(beside)
        self._count = 0

    def foretelling(self, rehearse: Rehearse) -> None:
        preparing = Preparing(self.store, self.clock, self.campaigns, self.usable, ())
        self.forecasts = Forecasts(preparing, self.clock, rehearse=rehearse)
        self.desk = self._desk(ADMIN)

    def _desk(self, *admins: Admin) -> CommandDesk:
        return CommandDesk(
            self.store,
            self.campaigns,
            clock=self.clock,
            secret="secret-of-this-test",
            admins=admins,
            accounts=self.usable,
            foretell=self.forecasts.soon,
        )

    async def says(self, text: str, *, user: str = ANN, what: Said = Said.TEXT) -> Content | None:
        self._count += 1
        inbound = said(text, key=str(self._count), user=user, what=what)
        handled = await self.reception.inbound(inbound)
        assert handled is not None
        return await self.desk.answer(Deed(inbound, handled))

    async def told(self, text: str) -> str:
        content = await self.says(text)
        assert content is not None
        return content.text

    async def presses(self, asked: Content, label: str, *, user: str = ANN) -> str:
        [payload] = [button.payload for button in asked.buttons if button.label == label]
        content = await self.says(str(payload), user=user, what=Said.PRESSED)
        return content.text if content else ""

    async def asked(self, text: str = "/launch Benefits week") -> Content:
        content = await self.says(text)
        assert content is not None
        assert [button.label for button in content.buttons] == ["Launch now", "Cancel"]
        return content

    async def broadcasts(self) -> int:
        return (await self.store.broadcasts(page=Page())).total


@pytest.fixture
async def office() -> Office:
    made = Office()
    await add_ann(made.store)
    await made.campaigns.create(AT_ONCE)
    return made


@pytest.mark.parametrize("text", ["/campaigns", "/launch Benefits week confirm", "/help me", "what is this?"])
async def test_whoever_is_no_admin_gets_no_answer(office: Office, text: str) -> None:
    """Not even that there are commands; and nothing happens."""
    assert await office.says(text, user="99") is None
    assert await office.broadcasts() == 0


async def test_what_is_no_command_is_not_answered(office: Office) -> None:
    """An admin may chat as well."""
    assert await office.says("good morning") is None


async def test_help_tells_admins_of_their_commands(office: Office) -> None:
    """Beside what everybody is told."""
    assert await office.told("/help") == HELP
    assert await office.says("/help", user="99") is None


async def test_entra_ids_are_compared_regardless_of_case(office: Office) -> None:
    """Teams and directories write the same id in different cases."""
    desk = office._desk(Admin(ChannelName.TEAMS, "8C1F-ABC"))  # noqa: SLF001 - its own helper
    asker = Asker(Admin(ChannelName.TEAMS, "8c1f-abc"), await add_ann(office.store))
    assert asker.admin in desk._admins  # noqa: SLF001


async def test_campaigns_are_listed_newest_first(office: Office) -> None:
    """With how often each was launched."""
    office.clock.at += timedelta(days=1)
    await office.campaigns.create(Draft("Canteen", Message("Soup")))
    assert await office.told("/campaigns") == "Canteen: draft\nBenefits week: draft"
    await office.told("/launch Benefits week confirm")
    assert "Benefits week: launched once" in await office.told("/campaigns")


async def test_try_sends_to_the_admin_who_asks(office: Office) -> None:
    """A trial to one person, which launches nothing."""
    assert await office.told("/try Benefits week") == "Benefits week is on its way to you."
    [trial] = (await office.store.broadcasts(page=Page())).items
    assert (trial.kind, trial.audience) == (BroadcastKind.TRIAL, Audience(recipients=("rcp_ann",)))
    [campaign] = await office.store.campaigns_named("Benefits week")
    assert campaign.status is CampaignStatus.DRAFT


async def test_launch_asks_first(office: Office) -> None:
    """Name, people, start, days and forecast are shown; nothing is launched."""
    asked = await office.asked()
    assert asked.text.splitlines() == [
        "Launch Benefits week?",
        "About 1 person now (settled at the start)",
        "Starts at once",
        "Over 1 working day, in UTC",
        f"Expected to finish {office.clock.at:%a %d %b %Y, %H:%M} (UTC)",
        "Expected to reach 1 of 1, limited by working time: moments are spread over 1 working day",
    ]
    assert await office.broadcasts() == 0


async def test_a_forecast_that_fails_keeps_nobody_from_launching(office: Office) -> None:
    """The question is asked as ever, and says so."""

    async def fails(stage: Stage, seeds: Sequence[int]) -> list[Run]:
        raise OSError("no more processes")

    office.foretelling(fails)
    asked = await office.asked()
    assert asked.text.splitlines()[-1] == "There is no forecast: it failed, and the log has more"


async def test_a_later_start_is_shown_in_its_own_zone(office: Office) -> None:
    """When it starts is told in the time that the campaign is written in."""
    schedule = Schedule(start=(office.clock.at + timedelta(days=3)).date(), working_days=5, timezone="Europe/Paris")
    await office.campaigns.create(Draft("Later", Message("x"), schedule=schedule))
    assert "Starts Mon 30 Mar 2026, 09:00 (Europe/Paris)" in await office.told("/launch Later")


async def test_buttons_fit_into_every_channel(office: Office) -> None:
    """Telegram takes 64 bytes (PLATFORMS C3)."""
    asked = await office.asked()
    assert all(len(str(button.payload).encode()) <= 64 for button in asked.buttons)


async def test_launch_now_launches_once(office: Office) -> None:
    """The button works, and pressing it again does not."""
    asked = await office.asked()
    assert "Benefits week is launched" in await office.presses(asked, "Launch now")
    assert "no longer holds" in await office.presses(asked, "Launch now")
    assert await office.broadcasts() == 1


async def test_cancel_ends_the_question(office: Office) -> None:
    """After a no the yes is worth nothing."""
    asked = await office.asked()
    assert await office.presses(asked, "Cancel") == "Benefits week is not launched."
    assert await office.presses(asked, "Launch now") == "That question has been answered."
    assert await office.broadcasts() == 0


async def test_another_admin_cannot_press_the_button(office: Office) -> None:
    """A question is for whoever was asked."""
    office.desk = office._desk(ADMIN, Admin(ChannelName.TELEGRAM, "99"))  # noqa: SLF001
    asked = await office.asked()
    assert "no longer holds" in await office.presses(asked, "Launch now", user="99")
    assert await office.broadcasts() == 0


async def test_whoever_is_no_admin_any_more_cannot_press_it(office: Office) -> None:
    """The right is looked at when the button is pressed."""
    asked = await office.asked()
    office.desk = office._desk()  # noqa: SLF001
    assert await office.presses(asked, "Launch now") == ""
    assert await office.broadcasts() == 0


@pytest.mark.parametrize(("after", "works"), [(VALID, True), (VALID + timedelta(seconds=1), False)])
async def test_a_question_holds_for_a_while(office: Office, after: timedelta, *, works: bool) -> None:
    """Up to and including its last second."""
    asked = await office.asked()
    office.clock.at += after
    assert ("is launched" in await office.presses(asked, "Launch now")) is works


async def test_a_campaign_that_changed_has_to_be_asked_about_again(office: Office) -> None:
    """Nobody confirms what they did not see."""
    asked = await office.asked()
    [campaign] = await office.store.campaigns_named("Benefits week")
    await office.campaigns.edit(campaign.id, Draft("Benefits week", Message("Something else")))
    assert "no longer holds" in await office.presses(asked, "Launch now")


@pytest.mark.parametrize(
    "payload", ["ask:", "ask:y:cmp_1:zz:x", "ask:z:cmp_1:1:x", "ask:y:cmp_1:ffffffffffffffff:x"]
)
async def test_a_forged_button_does_nothing(office: Office, payload: str) -> None:
    """What we did not sign is none of ours."""
    content = await office.says(payload, what=Said.PRESSED)
    assert content is not None
    assert content.text in {"This button is none of ours.", "There is no campaign cmp_1."}


async def test_launch_with_confirm_does_it_at_once(office: Office) -> None:
    """Who knows what they want is not asked."""
    assert "Benefits week is launched" in await office.told("/launch Benefits week confirm")
    [broadcast] = (await office.store.broadcasts(page=Page())).items
    assert broadcast.launched_by == f"telegram:{ANN}"


async def test_a_campaign_may_be_called_so(office: Office) -> None:
    """`confirm` as a part of a name is asked about rather than guessed."""
    await office.campaigns.create(Draft("Benefits week confirm", Message("x")))
    assert (await office.asked("/launch Benefits week confirm")).text.startswith("Launch Benefits week confirm?")


async def test_what_stands_in_the_way_is_said(office: Office) -> None:
    """Faults in words instead of a question."""
    await office.campaigns.create(Draft("Nobody", Message("x"), audience=Audience(channels=(ChannelName.VIBER,))))
    content = await office.says("/launch Nobody")
    assert content is not None
    assert content.text.startswith("Nobody cannot be launched:\n- audience")
    assert content.buttons == ()


async def test_a_name_that_is_none_and_one_that_fits_several_are_said(office: Office) -> None:
    """Never guessed."""
    assert await office.told("/status Bonus") == "There is no campaign called Bonus."
    await office.campaigns.create(AT_ONCE)
    assert "2 campaigns are called Benefits week" in await office.told("/try Benefits week")


async def test_status_before_a_launch_says_so(office: Office) -> None:
    """There is nothing to tell yet."""
    assert "has not been launched" in await office.told("/status Benefits week")


async def test_status_tells_numbers_and_what_is_not_reported(office: Office) -> None:
    """Progress, numbers per channel, "not reported" where a channel tells nothing, when it should end."""
    await office.told("/launch Benefits week confirm")
    await Launching(office.store, office.clock, office.usable).start_due()
    lines = (await office.told("/status Benefits week")).splitlines()
    assert lines[0] == "Benefits week: running, 1 people, 0% done"
    assert lines[1] == "Telegram: 0 of 1 sent, delivered not reported, read not reported, clicked 0"
    assert lines[2].startswith("Expected to finish by ")


async def test_status_says_why_somebody_got_nothing(office: Office) -> None:
    """Who unsubscribed is counted with the reason."""
    await office.told("/launch Benefits week confirm")
    await office.store.set_unsubscribed("rcp_ann", office.clock.at)
    await Launching(office.store, office.clock, office.usable).start_due()
    text = await office.told("/status Benefits week")
    assert "Not sent: 1 unsubscribed" in text
    assert "completed" in text
