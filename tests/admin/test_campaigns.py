"""Campaigns over HTTP: what is refused and why, what comes back, and what a launch makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from bot.admin.auth import Role
from bot.admin.services import AdminServices
from bot.admin.shapes.campaigns import ScheduleShape
from broadcast.model import OFFICE_HOURS, Policies, PresenceState, Schedule, Window
from tests.admin.conftest import Api
from tests.admin.samples import CAMPAIGN, LAUNCH, PROBLEM

SMALL = {"name": "Small", "message": {"text": "Hello"}}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sample with one thing changed: ``schedule.start``."""
    body = deepcopy(CAMPAIGN)
    *sections, name = path.split(".")
    inner = body
    for section in sections:
        inner = inner[section]
    inner[name] = value
    return body


async def created(api: Api, body: Any = None) -> dict[str, Any]:
    answer = await api.post("/campaigns", body or SMALL)
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.body
    return made


# --- creating -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_a_campaign_comes_back_as_it_was_written(api: Api) -> None:
    """Every section of the sample, to the letter, with what the service adds."""
    made = await created(api, CAMPAIGN)
    assert {name: made[name] for name in CAMPAIGN} == CAMPAIGN
    assert {name: made[name] for name in made.keys() - CAMPAIGN.keys()} == {
        "id": "cmp_4",
        "status": "draft",
        "created_at": "2026-03-26T15:02:11Z",
        "estimate": 3,
        "broadcasts": 0,
        "last_launched_at": None,
    }


async def test_a_campaign_that_repeats_tells_its_next_launch(api: Api, staff: None) -> None:
    """From its first launch on, until that is ended; ending it twice is a conflict."""
    body = {"name": "Daily", "message": {"text": "Hi"}, "schedule": {"repeat": "every weekday at 08:00"}}
    made = await created(api, body)
    assert made["schedule"]["repeat"] == "every weekday at 08:00"
    assert "next_launch_at" not in made
    await api.post(f"/campaigns/{made['id']}:launch")
    assert (await api.get(f"/campaigns/{made['id']}")).body["next_launch_at"].startswith("2026-03-27T")
    ended = await api.post(f"/campaigns/{made['id']}:end_repeat")
    assert (ended.status, "next_launch_at" in ended.body, "repeat" in ended.body["schedule"]) == (200, False, False)
    assert (await api.post(f"/campaigns/{made['id']}:end_repeat")).status == 409


async def test_only_name_and_message_are_required(api: Api) -> None:
    """What is left out has the value shown in the sample, or the default of the settings."""
    made = await created(api)
    assert made["audience"]["channels"] == ["teams", "telegram", "viber"]
    assert made["schedule"]["start"] is None
    assert made["policies"]["presence"] == {"teams": ["available"], "telegram": ["any"], "viber": ["any"]}


class TestDefaults:
    """What a campaign leaves out comes from the settings."""

    @pytest.fixture
    def services(self, services: AdminServices) -> AdminServices:
        schedule = Schedule(timezone="Europe/Athens", working_days=3, hours={0: (Window(480, 600),)})
        return replace(services, schedule=schedule, policies=Policies(rounds=2))

    async def test_what_is_left_out_is_the_default_of_the_settings(self, api: Api) -> None:
        """Also inside a section that is given in part."""
        made = await created(api, {**SMALL, "schedule": {"working_days": 4}})
        assert (made["schedule"]["timezone"], made["schedule"]["working_days"]) == ("Europe/Athens", 4)
        assert made["schedule"]["hours"] == {"mon": ["08:00-10:00"]}
        assert made["policies"]["rounds"] == 2


async def test_hours_that_are_given_are_all_there_are(api: Api) -> None:
    """A weekday left out is not worked, whatever the default is."""
    made = await created(api, {**SMALL, "schedule": {"hours": {"tue": ["10:00-11:00"]}}})
    assert made["schedule"]["hours"] == {"tue": ["10:00-11:00"]}


@pytest.mark.parametrize("presence", [["any"], ["available", "away"], {"teams": ["busy"], "viber": ["available"]}])
async def test_presence_comes_back_in_the_form_it_was_given(api: Api, presence: object) -> None:
    """A list for all channels stays a list, an object an object."""
    made = await created(api, {**SMALL, "policies": {"presence": presence}})
    assert made["policies"]["presence"] == presence


async def test_a_channel_that_presence_leaves_out_has_its_default(api: Api) -> None:
    """Teams asks for available unless it is told otherwise."""
    made = await created(api, {**SMALL, "policies": {"presence": {"viber": ["available"]}}})
    assert made["policies"]["presence"] == {"teams": ["available"], "viber": ["available"]}


async def test_presence_of_telegram_is_never_asked(api: Api, services: AdminServices) -> None:
    """A list for all channels leaves it at any: Telegram tells none."""
    made = await created(api, {**SMALL, "policies": {"presence": ["available"]}})
    policy = (await services.campaigns.get(made["id"])).policies.presence
    assert {str(channel): states for channel, states in policy.items()} == {
        "teams": {PresenceState.AVAILABLE},
        "telegram": None,
        "viber": {PresenceState.AVAILABLE},
    }


@pytest.mark.parametrize("start", ["2026-03-27", "2026-03-27T09:30:00", None])
async def test_a_start_is_a_date_or_a_local_date_time(api: Api, start: str | None) -> None:
    """It comes back as it was written."""
    made = await created(api, {**SMALL, "schedule": {"start": start}})
    assert made["schedule"]["start"] == start


# --- what is at fault ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_a_problem_looks_as_promised(api: Api) -> None:
    """The very problem of the sample."""
    answer = await api.post("/campaigns", changed("schedule.hours", {"mon": ["12:00-09:00"]}))
    assert (answer.status, answer.content_type, answer.body) == (422, "application/problem+json", PROBLEM)


@pytest.mark.usefixtures("staff")
@pytest.mark.parametrize(
    ("path", "value", "field", "said"),
    [
        ("name", "", "name", "must have 1 characters or more"),
        ("name", "   ", "name", "is 1 to 200 characters"),
        ("name", "x" * 201, "name", "must have 200 characters or fewer"),
        ("name", 7, "name", "must be text"),
        ("message", "Hello", "message", "must be an object"),
        ("message.text", "", "message.text", ""),
        ("message.text", "Hello [FIRSTNAM]", "message.text", "did you mean FIRSTNAME?"),
        ("message.text", "x" * 4097, "message.text", "takes 4096"),
        ("message.txt", "Hello", "message.txt", "is no field here; did you mean text?"),
        (
            "message.buttons",
            [{"id": "a", "type": "link", "label": "A"}],
            "message.buttons[0].url",
            "no web address",
        ),
        (
            "message.buttons",
            [CAMPAIGN["message"]["buttons"][0], {"id": "b", "type": "link", "label": "B", "url": "ftp://x"}],
            "message.buttons[1].url",
            "ftp://x is no web address",
        ),
        ("message.buttons", [{"id": "a", "type": "knob", "label": "A"}], "message.buttons[0].type", "'reply'"),
        ("message.buttons", [{"id": "a", "type": "reply"}], "message.buttons[0].label", "is required"),
        ("message.media", [{"type": "picture", "url": "x"}], "message.media[0].url", "no web address"),
        ("message.variants", {"vibre": {"text": "x"}}, "message.variants.vibre", "must be 'teams'"),
        ("message.variants", {"viber": {"txt": "x"}}, "message.variants.viber.txt", "did you mean text?"),
        (
            "message.variants",
            {"viber": {"text": "[NAME]"}},
            "message.variants.viber.text",
            "[NAME] is no placeholder",
        ),
        ("audience.lists", ["lst_nobody"], "audience.lists[0]", "lst_nobody is no list"),
        ("audience.channels", ["teams", "pigeon"], "audience.channels[1]", "must be 'teams'"),
        ("audience.channels", [], "audience.channels", "is empty"),
        ("audience.accounts", ["teams/it"], "audience.accounts[0]", "teams/it is no account"),
        ("schedule.start", "27.03.2026", "schedule.start", "27.03.2026 is no date; write 2026-03-27"),
        ("schedule.start", "2026-03-27T09:00:00+01:00", "schedule.start", "carries an offset"),
        ("schedule.working_days", 0, "schedule.working_days", "must be 1 or more"),
        ("schedule.working_days", "5", "schedule.working_days", "must be a whole number"),
        ("schedule.working_days", 2.5, "schedule.working_days", "must be a whole number"),
        ("schedule.timezone", "Europe/Pariss", "schedule.timezone", "did you mean Europe/Paris?"),
        ("schedule.holidays", ["2026-03-32"], "schedule.holidays[0]", "must be a date such as 2026-03-27"),
        ("schedule.holiday_country", "XX", "schedule.holiday_country", "is no country with known holidays"),
        ("schedule.hours", {"monday": ["09:00-12:00"]}, "schedule.hours.monday", "did you mean mon?"),
        ("schedule.hours", {"mon": "09:00-12:00"}, "schedule.hours.mon", "must be a list"),
        ("schedule.hours", {"mon": ["09:00-12:00", "11:00-13:00"]}, "schedule.hours.mon[1]", "overlaps"),
        ("schedule.hours", {}, "schedule.hours", "no window at all"),
        ("schedule.hours", {"mon": []}, "schedule.hours", "no window at all"),
        ("schedule.immediate", "yes", "schedule.immediate", "must be true or false"),
        ("policies.presence", ["here"], "policies.presence[0]", "here is no state"),
        ("policies.presence", [], "policies.presence", "must be a list of states"),
        ("policies.presence", ["any", "busy"], "policies.presence", "stands alone"),
        ("policies.presence", "any", "policies.presence", "must be a list of states"),
        ("policies.presence", {"teams": ["here"]}, "policies.presence.teams[0]", "here is no state"),
        ("policies.presence", {"teams": ["unknown"]}, "policies.presence.teams[0]", "unknown is no state"),
        ("policies.presence", {"pigeon": ["any"]}, "policies.presence.pigeon", "is no channel"),
        ("policies.presence", {"telegram": ["busy"]}, "policies.presence.telegram", "tells no presence"),
        ("policies.when_unknown", "maybe", "policies.when_unknown", "must be 'send' or 'wait'"),
        ("policies.rounds", 0, "policies.rounds", "must be 1 or more"),
        ("policies.rate", 0, "policies.rate", "more than 0"),
        ("schedule.repeat", "every weekdy", "schedule.repeat", "did you mean every weekday?"),
        ("policies.canary", {"first": 0}, "policies.canary.first", "is a number of sends from 1 to 1000000"),
        (
            "policies.canary",
            {"first": 5, "then": 0},
            "policies.canary.then",
            'is "approve", or a number of minutes',
        ),
        ("policies.canary", {"first": 5, "then": "wait"}, "policies.canary.then", 'is "approve", or a number of'),
        ("policies.canary", {"first": "5"}, "policies.canary.first", "must be a whole number"),
        ("policies.round", 3, "policies.round", "did you mean rounds?"),
        ("shedule", {}, "shedule", "did you mean schedule?"),
    ],
)
async def test_a_fault_names_its_field(api: Api, path: str, value: Any, field: str, said: str) -> None:
    """Where it is, in the words of the body, and how to mend it; nothing is created."""
    body = changed(path, value)
    if path == "message.text" and value == "":
        body["message"]["media"] = []
    answer = await api.post("/campaigns", body)
    assert (answer.status, answer.fields) == (422, [field])
    assert said in answer.body["errors"][0]["message"]
    assert (await api.get("/campaigns")).body["total"] == 0


ODD: list[Any] = [None, True, -1, 10**30, 1.5, [], [[]], {}, {"x": 1}]
ODD += ["", " ", "\u0000", "x" * 50_000, "{{ recipient.", "http://[", "0001-01-01", "9999-12-31"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a body, itself included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


@pytest.mark.parametrize("path", list(places(CAMPAIGN))[1:], ids=lambda path: ".".join(map(str, path)))
async def test_nothing_that_a_body_may_hold_is_a_fault_of_ours(api: Api, path: tuple[Any, ...]) -> None:
    """Whatever stands wherever: it is taken, or it is the caller's fault and named."""
    for odd in ODD:
        body = deepcopy(CAMPAIGN)
        inner: Any = body
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = odd
        answer = await api.post("/campaigns", body)
        assert answer.status in {201, 422}, odd
        if answer.status == 422:
            assert all(answer.fields), odd


async def test_all_faults_are_told_at_once(api: Api) -> None:
    """Nobody mends a body one call a fault."""
    answer = await api.post(
        "/campaigns", {"message": {"text": 1}, "schedule": {"start": "x", "hours": {"mon": ["x"]}}}
    )
    assert answer.fields == ["name", "message.text", "schedule.start", "schedule.hours.mon[0]"]
    assert answer.body["detail"] == "4 fields are at fault"


@pytest.mark.parametrize("body", [[], "x", 7, None])
async def test_a_body_that_is_no_object_is_at_fault_as_a_whole(api: Api, body: object) -> None:
    """The field is the body itself."""
    answer = await api.post("/campaigns", raw=json.dumps(body))
    assert (answer.status, answer.fields) == (422, ["body"])


# --- reading ------------------------------------------------------------------------------------------


async def test_campaigns_are_listed_newest_first_ten_at_a_time(api: Api) -> None:
    """Paged as every list is."""
    for number in range(11):
        await created(api, {**SMALL, "name": f"Campaign {number}"})
    answer = await api.get("/campaigns")
    assert (answer.body["page"], answer.body["per_page"], answer.body["total"]) == (1, 10, 11)
    assert len(answer.body["items"]) == 10
    assert len((await api.get("/campaigns?page=2")).body["items"]) == 1


async def test_an_empty_list_is_one(api: Api) -> None:
    """To the letter of the sample."""
    assert (await api.get("/campaigns")).body == {"items": [], "page": 1, "per_page": 10, "total": 0}


async def test_filters_narrow_the_list(api: Api) -> None:
    """By part of the name, status and channel, together."""
    await created(api, {**SMALL, "name": "Benefits", "audience": {"channels": ["viber"]}})
    await created(api, {**SMALL, "name": "Canteen"})
    names = [
        item["name"] for item in (await api.get("/campaigns?q=benef&status=draft&channel=viber")).body["items"]
    ]
    assert names == ["Benefits"]
    assert (await api.get("/campaigns?channel=teams&q=benef")).body["total"] == 0


@pytest.mark.usefixtures("staff")
async def test_a_list_counts_each_audience_once(api: Api, services: AdminServices, monkeypatch: Any) -> None:
    """Ten campaigns to everybody cost one count."""
    for number in range(3):
        await created(api, {**SMALL, "name": f"Campaign {number}"})
    counted = []
    size = services.store.audience_size

    async def counting(audience: Any) -> int:
        counted.append(audience)
        return await size(audience)

    monkeypatch.setattr(services.store, "audience_size", counting)
    answer = await api.get("/campaigns")
    assert [item["estimate"] for item in answer.body["items"]] == [3, 3, 3]
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("per_page=1001", "per_page"),
        ("page=x", "page"),
        ("page=1&page=2", "page"),
        ("status=gone", "status"),
        ("channel=pigeon", "channel"),
        ("colour=red", "colour"),
        ("q=" + "x" * 201, "q"),
    ],
)
async def test_a_query_at_fault_names_its_parameter(api: Api, query: str, field: str) -> None:
    """Unknown parameters included: a filter that does nothing would mislead."""
    answer = await api.get(f"/campaigns?{query}")
    assert (answer.status, answer.fields) == (422, [field])


# --- editing ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_a_patch_merges(api: Api) -> None:
    """What is not given stays, also beside it in the same section."""
    made = await created(api, CAMPAIGN)
    answer = await api.patch(f"/campaigns/{made['id']}", {"name": "New", "schedule": {"working_days": 2}})
    assert answer.status == 200
    assert answer.body == {**made, "name": "New", "schedule": {**made["schedule"], "working_days": 2}}


@pytest.mark.usefixtures("staff")
async def test_a_patch_replaces_a_field_as_a_whole(api: Api) -> None:
    """Hours, presence, buttons and variants are fields: what they had is gone."""
    made = await created(api, CAMPAIGN)
    patch = {"schedule": {"hours": {"tue": ["09:00-10:00"]}}, "message": {"variants": {}, "buttons": []}}
    answer = await api.patch(f"/campaigns/{made['id']}", patch)
    assert answer.body["schedule"]["hours"] == {"tue": ["09:00-10:00"]}
    assert (answer.body["message"]["variants"], answer.body["message"]["buttons"]) == ({}, [])
    assert answer.body["message"]["text"] == CAMPAIGN["message"]["text"]


async def test_an_empty_patch_changes_nothing(api: Api) -> None:
    """Merging nothing is allowed."""
    made = await created(api)
    assert (await api.patch(f"/campaigns/{made['id']}", {})).body == made


async def test_a_patch_is_checked_like_a_new_campaign(api: Api) -> None:
    """Form and meaning both; the campaign stays as it was."""
    made = await created(api)
    for patch, field in (
        ({"id": "x"}, "id"),
        ({"message": {"text": " "}}, "message.text"),
        ({"name": None}, "name"),
    ):
        answer = await api.patch(f"/campaigns/{made['id']}", patch)
        assert (answer.status, answer.fields) == (422, [field])
    assert (await api.get(f"/campaigns/{made['id']}")).body == made


@pytest.mark.usefixtures("staff")
async def test_a_launched_campaign_is_locked(api: Api) -> None:
    """Its content can be changed no more."""
    made = await created(api)
    await api.post(f"/campaigns/{made['id']}:launch")
    answer = await api.patch(f"/campaigns/{made['id']}", {"name": "New"})
    assert (answer.status, answer.content_type) == (409, "application/problem+json")
    assert "was launched" in answer.body["detail"]


# --- validating, trying, launching --------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_nothing_stands_in_the_way_of_a_good_campaign(api: Api) -> None:
    """Validation of what can be launched is an empty list."""
    made = await created(api, CAMPAIGN)
    assert (await api.post(f"/campaigns/{made['id']}:validate")).body == {"faults": []}


async def test_validation_says_what_stands_in_the_way(api: Api) -> None:
    """An empty audience and a past start can be written, and not launched."""
    made = await created(api, {**SMALL, "schedule": {"start": "2026-03-25"}})
    answer = await api.post(f"/campaigns/{made['id']}:validate")
    assert answer.status == 200
    assert [fault["field"] for fault in answer.body["faults"]] == ["schedule.start", "audience"]
    launched = await api.post(f"/campaigns/{made['id']}:launch")
    assert (launched.status, launched.fields) == (422, ["schedule.start", "audience"])


# --- foretelling --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_a_forecast_says_what_a_launch_would_come_to(
    client: TestClient[web.Request, web.Application], tokens: dict[Role, str], api: Api
) -> None:
    """Whoever may look may ask for it; nothing is launched."""
    made = await created(api, {**SMALL, "schedule": {"start": "2026-03-27"}})
    answer = await Api(client, tokens[Role.VIEWER]).post(f"/campaigns/{made['id']}:forecast", {"seeds": 2})
    assert answer.status == 200, answer.body
    told = answer.body
    assert (told["campaign"], told["people"], told["seeds"], told["sample"]) == (made["id"], 3, [1, 2], None)
    assert (
        told["reached"]["expected"] + told["unreached"]["expected"] + sum(one["people"] for one in told["skipped"])
        == 3
    )
    assert told["finish"]["low"] <= told["finish"]["expected"] <= told["finish"]["high"]
    assert told["finish"]["expected"].startswith("2026-03-27T")
    assert {line["hour"][:10] for line in told["hours"]} == {"2026-03-27"}
    assert set(told["limit"]) == {"kind", "account", "text"}
    assert "1 person gets only one round" in told["warnings"]
    assert (await api.get("/broadcasts")).body["total"] == 0


@pytest.mark.usefixtures("staff")
async def test_a_forecast_may_be_of_another_start(api: Api) -> None:
    """As a launch may."""
    made = await created(api, {**SMALL, "schedule": {"start": "2026-03-27"}})
    answer = await api.post(f"/campaigns/{made['id']}:forecast", {"start": "2026-04-07", "seeds": 1})
    assert answer.body["finish"]["high"].startswith("2026-04-07T")


async def test_what_cannot_be_launched_is_not_foretold(api: Api) -> None:
    """The same fields are at fault; so is a number of seeds that cannot be."""
    made = await created(api, {**SMALL, "schedule": {"start": "2026-03-25"}})
    answer = await api.post(f"/campaigns/{made['id']}:forecast")
    assert (answer.status, answer.fields) == (422, ["schedule.start", "audience"])
    answer = await api.post(f"/campaigns/{made['id']}:forecast", {"seeds": 21})
    assert (answer.status, answer.fields) == (422, ["seeds"])
    assert (await api.post("/campaigns/cmp_x:forecast")).status == 404


@pytest.mark.usefixtures("staff")
async def test_a_launch_makes_a_broadcast(api: Api) -> None:
    """With everything of the sample; the audience is not resolved yet."""
    made = await created(api, CAMPAIGN)
    answer = await api.post(f"/campaigns/{made['id']}:launch", LAUNCH)
    assert answer.status == 201
    assert answer.body == {
        "id": "brd_5",
        "campaign": made["id"],
        "name": "Benefits week",
        "status": "scheduled",
        "reason": None,
        "seed": 7,
        "launched_at": "2026-03-26T15:02:11Z",
        "launched_by": "tok_4",
        "starts_at": "2026-04-10T07:00:00Z",
        "expected_finish_at": "2026-04-24T16:00:00Z",
        "finished_at": None,
        "planned": None,
        "progress": 0.0,
        "deliveries": dict.fromkeys(
            ("planned", "sending", "sent", "failed", "unscheduled", "skipped", "cancelled", "uncertain"), 0
        ),
        "accounts": [
            {
                "account": "teams/hr",
                "rate": 30.0,
                "achieved_rate": 29.8,
                "waiting_until": "2026-03-26T15:02:11Z",
            },
            {"account": "telegram/news", "rate": 30.0, "achieved_rate": None, "waiting_until": None},
            {"account": "viber/default", "rate": 50.0, "achieved_rate": None, "waiting_until": None},
        ],
        "kind": "campaign",
        "reason_detail": None,
    }


@pytest.mark.usefixtures("staff")
async def test_a_campaign_can_be_launched_again(api: Api) -> None:
    """Each launch counts and is a broadcast of its own; a start that is given holds for that one only."""
    made = await created(api)
    first = await api.post(f"/campaigns/{made['id']}:launch", {"start": "2026-04-07"})
    second = await api.post(f"/campaigns/{made['id']}:launch")
    assert first.body["id"] != second.body["id"]
    assert second.body["starts_at"] == "2026-03-26T15:02:11Z"
    campaign = (await api.get(f"/campaigns/{made['id']}")).body
    assert (campaign["status"], campaign["broadcasts"]) == ("launched", 2)
    assert campaign["last_launched_at"] == "2026-03-26T15:02:11Z"
    assert campaign["schedule"]["start"] is None


@pytest.mark.usefixtures("staff")
@pytest.mark.parametrize(
    ("body", "field"),
    [({"start": "soon"}, "start"), ({"seed": -1}, "seed"), ({"seed": "7"}, "seed"), ({"rounds": 1}, "rounds")],
)
async def test_a_launch_at_fault_launches_nothing(api: Api, body: dict[str, Any], field: str) -> None:
    """The campaign stays a draft."""
    made = await created(api)
    answer = await api.post(f"/campaigns/{made['id']}:launch", body)
    assert (answer.status, answer.fields) == (422, [field])
    assert (await api.get(f"/campaigns/{made['id']}")).body["status"] == "draft"


@pytest.mark.usefixtures("staff")
@pytest.mark.parametrize("who", ["ann@example.com", "E1007", "rcp_1"])
async def test_a_trial_goes_to_one_person(api: Api, services: AdminServices, who: str) -> None:
    """Named by e-mail, external id or id; the campaign stays a draft."""
    made = await created(api, CAMPAIGN)
    answer = await api.post(f"/campaigns/{made['id']}:try", {"to": who})
    assert (answer.status, answer.body["kind"]) == (201, "trial")
    broadcast = await services.broadcasts.get(answer.body["id"])
    assert broadcast.audience.recipients == ("rcp_1",)
    assert (await api.get(f"/campaigns/{made['id']}")).body["status"] == "draft"


async def test_a_trial_to_nobody_is_not_found(api: Api) -> None:
    """The answer says how to name somebody."""
    made = await created(api)
    answer = await api.post(f"/campaigns/{made['id']}:try", {"to": "zoe@example.com"})
    assert (answer.status, "zoe@example.com" in answer.body["detail"]) == (404, True)


async def test_a_trial_says_to_whom(api: Api) -> None:
    """`to` is required."""
    made = await created(api)
    assert (await api.post(f"/campaigns/{made['id']}:try", {})).fields == ["to"]


def test_office_hours_are_what_the_description_shows() -> None:
    """The default that a body documents is the domain's."""
    assert ScheduleShape().hours == {day: ["09:00-18:00"] for day in ("mon", "tue", "wed", "thu", "fri")}
    assert len(OFFICE_HOURS) == 5
