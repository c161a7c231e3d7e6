"""Broadcasts, reports, deliveries and their exports over HTTP."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from openpyxl import load_workbook

from bot.admin import exports
from bot.admin.auth import Role
from bot.admin.services import AdminServices, Pace
from broadcast.errors import Removed, StoreUnavailable
from broadcast.model import (
    Attempt,
    Broadcast,
    BroadcastReason,
    BroadcastStatus,
    ChannelName,
    Delivery,
    DeliveryState,
    Event,
    EventType,
    Outcome,
    Reason,
    Recipient,
    Rung,
)
from broadcast.retention import Retention
from storage.memory import MemoryStore
from tests.admin.conftest import Api
from tests.admin.fakes import NOW, StillClock
from tests.admin.samples import CAMPAIGN
from tests.admin.test_campaigns import created

NOON = datetime(2026, 3, 27, 14, 0, tzinfo=UTC)
ANN, BEN, CAT = "dlv_ann", "dlv_ben", "dlv_cat"


def delivery(id: str, recipient: str, position: int, broadcast: str, **more: Any) -> Delivery:
    return Delivery(
        id, broadcast, recipient, position, **{"channel": None, "account": None, "conversation": None} | more
    )


async def running(store: MemoryStore, id: str) -> Broadcast:
    """The broadcast as it stands once its audience is resolved: Ann has it, Ben waits, Cat is unsubscribed."""
    launched = await store.broadcast(id)
    assert launched is not None
    await store.plan(
        [
            delivery(
                ANN,
                "rcp_1",
                0,
                id,
                channel=ChannelName.TEAMS,
                account="teams/hr",
                state=DeliveryState.SENT,
                rung=Rung.SLOT,
                attempts=3,
                sends=2,
                due_at=NOON,
                sent_at=NOON + timedelta(seconds=5),
                platform_message_id="1692206589131",
            ),
            delivery(BEN, "rcp_2", 1, id, channel=ChannelName.TELEGRAM, account="telegram/news", due_at=NOON),
            delivery(
                CAT,
                "rcp_3",
                2,
                id,
                channel=ChannelName.VIBER,
                account="viber/default",
                state=DeliveryState.SKIPPED,
                reason=Reason.UNSUBSCRIBED,
            ),
        ],
        [
            Attempt(ANN, NOON, 1, Rung.SLOT, Outcome.THROTTLED, "429"),
            Attempt(ANN, NOON, 1, Rung.SLOT, Outcome.SENT),
        ],
    )
    await store.add_events(
        [
            Event("read:1", ANN, EventType.READ, NOON + timedelta(minutes=3)),
            Event("click:1", ANN, EventType.CLICKED, NOON + timedelta(minutes=4), button="enrol"),
        ]
    )
    begun = replace(launched, status=BroadcastStatus.INITIALIZING)
    await store.save_broadcast(begun, expected=BroadcastStatus.SCHEDULED)
    now = replace(begun, status=BroadcastStatus.RUNNING, planned=3)
    await store.save_broadcast(now, expected=BroadcastStatus.INITIALIZING)
    return now


@pytest.fixture
async def launched(api: Api, staff: None) -> str:
    """A broadcast that has not begun."""
    made = await created(api, CAMPAIGN)
    return str((await api.post(f"/campaigns/{made['id']}:launch")).body["id"])


@pytest.fixture
async def broadcast(launched: str, store: MemoryStore) -> str:
    await running(store, launched)
    return launched


# --- watching and steering ----------------------------------------------------------------------------


async def test_a_running_broadcast_is_counted(api: Api, broadcast: str) -> None:
    """`planned` is the sum of the deliveries; progress is the share with an end."""
    body = (await api.get(f"/broadcasts/{broadcast}")).body
    assert (body["status"], body["planned"], body["progress"]) == ("running", 3, 0.67)
    assert body["deliveries"] == {
        "planned": 1,
        "sending": 0,
        "sent": 1,
        "failed": 0,
        "unscheduled": 0,
        "skipped": 1,
        "cancelled": 0,
        "uncertain": 0,
    }


async def test_a_broadcast_is_paused_and_resumed(api: Api, broadcast: str) -> None:
    """With the reason while it is paused."""
    paused = await api.post(f"/broadcasts/{broadcast}:pause")
    assert (paused.status, paused.body["status"], paused.body["reason"]) == (200, "paused", "by_user")
    resumed = await api.post(f"/broadcasts/{broadcast}:resume")
    assert (resumed.body["status"], resumed.body["reason"]) == ("running", None)


async def test_a_canary_is_approved(
    client: TestClient[web.Request, web.Application], tokens: dict[Role, str], store: MemoryStore, broadcast: str
) -> None:
    """By an approver; an editor is told which role it takes. Nothing else is approved."""
    stored = await store.broadcast(broadcast)
    assert stored is not None
    held = replace(stored, status=BroadcastStatus.PAUSED, reason=BroadcastReason.CANARY, resumes_at=NOON)
    await store.save_broadcast(held, expected=stored.status)
    approver = Api(client, tokens[Role.APPROVER])
    assert (await approver.get(f"/broadcasts/{broadcast}")).body["resumes_at"] == "2026-03-27T14:00:00Z"
    assert (await Api(client, tokens[Role.EDITOR]).post(f"/broadcasts/{broadcast}:approve")).status == 403
    approved = await approver.post(f"/broadcasts/{broadcast}:approve")
    assert (approved.status, approved.body["status"], approved.body["reason"]) == (200, "running", None)
    assert "resumes_at" not in approved.body
    assert (await approver.post(f"/broadcasts/{broadcast}:approve")).status == 409


async def test_a_stop_cancels_what_is_planned(api: Api, broadcast: str) -> None:
    """What went out stays out; stopping twice is once."""
    stopped = await api.post(f"/broadcasts/{broadcast}:stop")
    assert (stopped.status, stopped.body["status"], stopped.body["progress"]) == (200, "stopped", 1.0)
    assert (stopped.body["deliveries"]["cancelled"], stopped.body["deliveries"]["sent"]) == (1, 1)
    assert (await api.post(f"/broadcasts/{broadcast}:stop")).body == stopped.body


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_what_its_state_does_not_allow_is_a_conflict(api: Api, broadcast: str, verb: str) -> None:
    """A stopped broadcast stays stopped."""
    await api.post(f"/broadcasts/{broadcast}:stop")
    answer = await api.post(f"/broadcasts/{broadcast}:{verb}")
    assert (answer.status, "stopped" in answer.body["detail"]) == (409, True)


async def test_a_verb_takes_no_body(api: Api, broadcast: str) -> None:
    """A reason that nobody reads is refused."""
    answer = await api.post(f"/broadcasts/{broadcast}:pause", {"reason": "lunch"})
    assert (answer.status, answer.fields) == (422, ["reason"])


async def test_a_pause_says_why(api: Api, broadcast: str, services: AdminServices) -> None:
    """In one of a few words, with the account's own trouble beside it."""
    await services.broadcasts.pause(broadcast, BroadcastReason.ACCOUNT_DISCONNECTED, detail="teams/hr: revoked")
    body = (await api.get(f"/broadcasts/{broadcast}")).body
    assert (body["reason"], body["reason_detail"]) == ("account_disconnected", "teams/hr: revoked")


async def test_the_pace_of_an_ended_broadcast_is_not_told(api: Api, broadcast: str) -> None:
    """Its accounts send something else by then."""
    await api.post(f"/broadcasts/{broadcast}:stop")
    accounts = (await api.get(f"/broadcasts/{broadcast}")).body["accounts"]
    assert [account["achieved_rate"] for account in accounts] == [None, None, None]


async def test_the_rate_shown_is_the_lower_one(api: Api, staff: None) -> None:
    """A campaign may be slower than its accounts."""
    made = await created(api, {"name": "Slow", "message": {"text": "Hi"}, "policies": {"rate": 40}})
    launched = await api.post(f"/campaigns/{made['id']}:launch")
    assert [account["rate"] for account in launched.body["accounts"]] == [30.0, 30.0, 40.0]


async def test_a_share_is_shown_beside_what_is_achieved_of_it(api: Api, store: MemoryStore, broadcast: str) -> None:
    """Both are the broadcast's own; what the account does for others is left out."""
    stored = await store.broadcast(broadcast)
    assert stored is not None
    await store.save_broadcast(replace(stored, rates={"teams/hr": 2.5}), expected=stored.status)
    [teams, *_] = (await api.get(f"/broadcasts/{broadcast}")).body["accounts"]
    assert (teams["rate"], teams["achieved_rate"]) == (2.5, 29.8)
    assert Pace(29.8, None, {broadcast: 2.49}).achieved_of(broadcast) == 2.49
    assert Pace(29.8, None, {}).achieved_of(broadcast) == 0.0


async def test_broadcasts_are_listed_without_trials(api: Api, broadcast: str) -> None:
    """Unless they are asked for."""
    campaign = (await api.get(f"/broadcasts/{broadcast}")).body["campaign"]
    trial = (await api.post(f"/campaigns/{campaign}:try", {"to": "ann@example.com"})).body["id"]
    assert [item["id"] for item in (await api.get("/broadcasts")).body["items"]] == [broadcast]
    assert [item["id"] for item in (await api.get("/broadcasts?kind=trial")).body["items"]] == [trial]


@pytest.mark.parametrize(
    ("query", "count"), [("status=running,paused", 1), ("status=stopped", 0), ("campaign=cmp_x", 0), ("", 1)]
)
async def test_broadcasts_are_filtered(api: Api, broadcast: str, query: str, count: int) -> None:
    """By status (several with commas) and campaign."""
    assert (await api.get(f"/broadcasts?{query}")).body["total"] == count


# --- report -------------------------------------------------------------------------------------------


async def test_a_report_tells_what_a_broadcast_came_to(api: Api, broadcast: str) -> None:
    """Every number from the counters; null where a channel cannot tell."""
    answer = await api.get(f"/broadcasts/{broadcast}/report")
    zero = {"people": 0, "total": 0, "reported_by": 0}
    assert answer.status == 200
    assert answer.body == {
        "broadcast": broadcast,
        "as_of": "2026-03-26T15:02:11Z",
        "planned": 3,
        "sent": 1,
        "deliveries": {
            "planned": 1,
            "sending": 0,
            "sent": 1,
            "failed": 0,
            "unscheduled": 0,
            "skipped": 1,
            "cancelled": 0,
            "uncertain": 0,
        },
        "delivered": zero,
        "read": {"people": 1, "total": 1, "reported_by": 1},
        "clicked": {"people": 1, "total": 1, "reported_by": 1},
        "channels": [
            {
                "channel": "teams",
                "planned": 1,
                "sent": 1,
                "failed": 0,
                "unscheduled": 0,
                "skipped": 0,
                "delivered": None,
                "read": {"people": 1, "total": 1, "reported_by": 1},
                "clicked": {"people": 1, "total": 1, "reported_by": 1},
            },
            {
                "channel": "telegram",
                "planned": 1,
                "sent": 0,
                "failed": 0,
                "unscheduled": 0,
                "skipped": 0,
                "delivered": None,
                "read": None,
                "clicked": zero,
            },
            {
                "channel": "viber",
                "planned": 1,
                "sent": 0,
                "failed": 0,
                "unscheduled": 0,
                "skipped": 1,
                "delivered": zero,
                "read": zero,
                "clicked": zero,
            },
        ],
        "hours": [{"hour": "2026-03-27T14:00:00Z", "sent": 1, "clicked": 1}],
        "rounds": [{"round": 1, "rung": "slot", "attempts": 1, "sent": 1, "absent": 0}],
        "buttons": [
            {"button": "enrol", "type": "link", "label": "Enrol", "people": 1, "total": 1},
            {"button": "later", "type": "reply", "label": "Later", "people": 0, "total": 0},
        ],
        "reasons": [{"state": "skipped", "reason": "unsubscribed", "people": 1}],
        "possibly_doubled": 0,
    }


async def test_a_report_before_the_start_has_nothing_planned(api: Api, launched: str) -> None:
    """Unknown is null, and counters are zeros."""
    body = (await api.get(f"/broadcasts/{launched}/report")).body
    assert (body["planned"], body["sent"], body["channels"]) == (None, 0, [])


# --- deliveries ---------------------------------------------------------------------------------------


async def test_a_delivery_is_a_row(api: Api, broadcast: str) -> None:
    """With the fields of the sample; nothing is due once it ended."""
    rows = (await api.get(f"/broadcasts/{broadcast}/deliveries")).body["items"]
    assert rows[0] == {
        "id": ANN,
        "broadcast": broadcast,
        "state": "sent",
        "reason": None,
        "recipient": {"id": "rcp_1", "external_id": "E1007", "name": "Ann Ash", "email": "ann@example.com"},
        "channel": "teams",
        "account": "teams/hr",
        "round": 1,
        "rung": "slot",
        "attempts": 3,
        "sends": 2,
        "due_at": None,
        "sent_at": "2026-03-27T14:00:05Z",
        "delivered_at": None,
        "read_at": "2026-03-27T14:03:00Z",
        "clicked_at": "2026-03-27T14:04:00Z",
        "platform_message_id": "1692206589131",
        "possibly_doubled": False,
    }
    assert [row["due_at"] for row in rows] == [None, "2026-03-27T14:00:00Z", None]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("state=sent", [ANN]),
        ("state=sent,planned", [ANN, BEN]),
        ("state=sent&state=planned", [ANN, BEN]),
        ("reason=unsubscribed", [CAT]),
        ("channel=viber,teams", [ANN, CAT]),
        ("q=BEN", [BEN]),
        ("q=example.com&state=skipped", [CAT]),
        ("per_page=2&page=2", [CAT]),
        ("state=", [ANN, BEN, CAT]),
    ],
)
async def test_deliveries_are_filtered_in_the_order_of_the_plan(
    api: Api, broadcast: str, query: str, ids: list[str]
) -> None:
    """By state, reason, channel and search, together; several values with commas."""
    answer = await api.get(f"/broadcasts/{broadcast}/deliveries?{query}")
    assert [row["id"] for row in answer.body["items"]] == ids


@pytest.mark.parametrize("ending", ["", ".csv", ".xlsx"])
@pytest.mark.parametrize(
    ("query", "field"), [("state=gone", "state[0]"), ("reason=none", "reason[0]"), ("stat=sent", "stat")]
)
async def test_a_filter_at_fault_names_itself(
    api: Api, broadcast: str, ending: str, query: str, field: str
) -> None:
    """In the list and in the exports alike."""
    answer = await api.get(f"/broadcasts/{broadcast}/deliveries{ending}?{query}")
    assert (answer.status, answer.fields) == (422, [field])


async def test_a_delivery_has_its_timeline(api: Api, broadcast: str) -> None:
    """Every attempt and event in time order, in the row's company."""
    answer = await api.get(f"/deliveries/{ANN}")
    [row] = (await api.get(f"/broadcasts/{broadcast}/deliveries?q=ann")).body["items"]
    assert answer.body == {
        **row,
        "timeline": [
            {
                "at": "2026-03-27T14:00:00Z",
                "type": "attempt",
                "round": 1,
                "rung": "slot",
                "outcome": "throttled",
                "detail": "429",
            },
            {
                "at": "2026-03-27T14:00:00Z",
                "type": "attempt",
                "round": 1,
                "rung": "slot",
                "outcome": "sent",
                "detail": None,
            },
            {"at": "2026-03-27T14:03:00Z", "type": "read", "detail": None},
            {"at": "2026-03-27T14:04:00Z", "type": "clicked", "button": "enrol", "detail": None},
        ],
    }


# --- exports ------------------------------------------------------------------------------------------


async def test_the_csv_has_the_columns_in_their_order(api: Api, broadcast: str) -> None:
    """A header, a line for each delivery, empty where there is nothing."""
    answer = await api.get(f"/broadcasts/{broadcast}/deliveries.csv")
    assert (answer.status, answer.content_type) == (200, "text/csv")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{broadcast}.csv"'
    header, ann, *others = csv.reader(io.StringIO(answer.body.decode()))
    assert ",".join(header) == (
        "id,broadcast,state,reason,recipient.id,recipient.external_id,recipient.name,recipient.email,channel,account,"
        "round,rung,attempts,sends,due_at,sent_at,delivered_at,read_at,clicked_at,platform_message_id"
    )
    assert ",".join(ann) == (
        f"{ANN},{broadcast},sent,,rcp_1,E1007,Ann Ash,ann@example.com,teams,teams/hr,"
        "1,slot,3,2,,2026-03-27T14:00:05Z,,2026-03-27T14:03:00Z,2026-03-27T14:04:00Z,1692206589131"
    )
    assert [row[0] for row in others] == [BEN, CAT]


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
async def test_an_export_can_be_asked_about_without_its_rows(api: Api, broadcast: str, ending: str) -> None:
    """HEAD is GET without the body."""
    answer = await api.call("HEAD", f"/broadcasts/{broadcast}/deliveries.{ending}")
    assert (answer.status, answer.body) == (200, b"")


async def test_the_spreadsheet_has_the_same(api: Api, broadcast: str) -> None:
    """Numbers are numbers, and the id of a message stays text."""
    answer = await api.get(f"/broadcasts/{broadcast}/deliveries.xlsx?state=sent")
    assert answer.content_type == exports.XLSX
    rows = list(load_workbook(io.BytesIO(answer.body), read_only=True).worksheets[0].values)
    assert rows[0] == exports.COLUMNS
    assert rows[1][:4] == (ANN, broadcast, "sent", None)
    assert rows[1][10:14] == (1, "slot", 3, 2)
    assert rows[1][19] == "1692206589131"
    assert len(rows) == 2


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)"])
async def test_a_name_cannot_become_a_formula(api: Api, broadcast: str, store: MemoryStore, name: str) -> None:
    """What people call themselves on a platform is shown in somebody else's spreadsheet."""
    ann = await store.recipient("rcp_1")
    assert ann is not None
    await store.save_recipients([replace(ann, first_name=name, last_name=None)])
    text = (await api.get(f"/broadcasts/{broadcast}/deliveries.csv?state=sent")).body.decode()
    assert f"'{name}" in text
    book = (await api.get(f"/broadcasts/{broadcast}/deliveries.xlsx?state=sent")).body
    cell = load_workbook(io.BytesIO(book)).worksheets[0]["G2"]
    assert (cell.value, cell.data_type) == (name, "s")


async def test_control_characters_do_not_break_a_spreadsheet(api: Api, broadcast: str, store: MemoryStore) -> None:
    """They are left out: the format has no place for them."""
    ann = await store.recipient("rcp_1")
    assert ann is not None
    await store.save_recipients([replace(ann, first_name="A\x0bnn")])
    book = (await api.get(f"/broadcasts/{broadcast}/deliveries.xlsx")).body
    assert load_workbook(io.BytesIO(book)).worksheets[0]["G2"].value == "Ann Ash"


async def test_more_rows_than_a_sheet_holds_go_on_in_the_next(
    api: Api, broadcast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its header."""
    monkeypatch.setattr(exports, "_SHEET_ROWS", 2)
    book = load_workbook(io.BytesIO((await api.get(f"/broadcasts/{broadcast}/deliveries.xlsx")).body))
    assert [sheet.max_row for sheet in book.worksheets] == [3, 2]


async def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(
    api: Api, broadcast: str, services: AdminServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut: the caller sees that something is missing."""

    async def breaking(*_: object) -> AsyncIterator[tuple[Delivery, Recipient]]:
        for number in range(exports._AT_ONCE):  # noqa: SLF001 - one batch goes out before it breaks
            yield delivery(f"dlv_{number}", "rcp_1", number, broadcast), Recipient("rcp_1")
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(services.store, "all_deliveries", breaking)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.get(f"/broadcasts/{broadcast}/deliveries.csv")


# --- what is not kept for ever ------------------------------------------------------------------------


@pytest.fixture
async def folded(broadcast: str, store: MemoryStore, clock: StillClock) -> str:
    """A broadcast that ended, and of which only the counters are left."""
    found = await store.broadcast(broadcast)
    assert found is not None
    await store.cancel_planned(broadcast, NOW, 9)
    ended = replace(found, status=BroadcastStatus.STOPPED, finished_at=NOW - timedelta(days=91))
    await store.save_broadcast(ended, expected=found.status)
    assert [one.removed async for one in Retention(store, clock, after=timedelta(days=90)).sweep()] == [3, 0]
    return broadcast


@pytest.mark.parametrize("path", ["", "?state=failed&q=ann", ".csv", ".xlsx", ".csv?reason=absent"])
async def test_who_asks_for_deliveries_that_were_removed_is_told_so(api: Api, folded: str, path: str) -> None:
    """410 and since when: an empty list would say that nobody got it."""
    answer = await api.get(f"/broadcasts/{folded}/deliveries{path}")
    assert (answer.status, answer.content_type) == (410, "application/problem+json")
    assert answer.body["detail"].startswith("the single deliveries of Benefits week were removed on 2026-03-26")


async def test_the_report_stays_and_says_that_it_is_all_there_is(api: Api, folded: str) -> None:
    """The numbers as they were, with since when there is nothing behind them."""
    answer = (await api.get(f"/broadcasts/{folded}/report")).body
    assert answer["deliveries_removed_at"] == "2026-03-26T15:02:11Z"
    assert (answer["planned"], answer["sent"], answer["read"]["people"], answer["buttons"][0]["total"]) == (
        3,
        1,
        1,
        1,
    )
    assert {"state": "skipped", "reason": "unsubscribed", "people": 1} in answer["reasons"]


async def test_a_broadcast_says_since_when_its_deliveries_are_gone(api: Api, folded: str) -> None:
    """Beside its counters, which stay."""
    answer = (await api.get(f"/broadcasts/{folded}")).body
    assert answer["deliveries_removed_at"] == "2026-03-26T15:02:11Z"
    assert (answer["deliveries"]["sent"], answer["progress"]) == (1, 1.0)


@pytest.mark.parametrize("path", ["", "/report"])
async def test_one_whose_deliveries_are_kept_says_nothing_of_it(api: Api, broadcast: str, path: str) -> None:
    """The field is there only where it says something."""
    assert "deliveries_removed_at" not in (await api.get(f"/broadcasts/{broadcast}{path}")).body


async def test_an_export_during_which_the_removal_begins_breaks_off(
    api: Api, broadcast: str, services: AdminServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the deliveries must not pass for all of them."""
    kept, asked = services.broadcasts.with_deliveries, iter([True, False])

    async def kept_once(id: str) -> Broadcast:
        if next(asked):
            return await kept(id)
        raise Removed("removed meanwhile")

    monkeypatch.setattr(services.broadcasts, "with_deliveries", kept_once)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.get(f"/broadcasts/{broadcast}/deliveries.csv")


# --- accounts -----------------------------------------------------------------------------------------


async def test_accounts_say_how_they_stand(api: Api) -> None:
    """Connected, not connected with what to do, or unknown to this process."""
    answer = await api.get("/accounts")
    assert {item["account"]: (item["status"], item["detail"]) for item in answer.body["items"]} == {
        "teams/hr": ("connected", None),
        "telegram/news": ("unknown", None),
        "viber/default": ("not_connected", "set CLARION_VIBER_TOKEN"),
    }
    assert (answer.body["total"], answer.body["items"][0]["achieved_rate"]) == (3, 29.8)


async def test_accounts_are_paged_like_every_list(api: Api) -> None:
    """In order of their keys."""
    answer = await api.get("/accounts?per_page=1&page=2")
    assert [item["account"] for item in answer.body["items"]] == ["telegram/news"]
