"""Forecasts over everybody through the endpoint: begun, asked for, not found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.admin import PREFIX
from bot.admin.app import ROUTES
from bot.admin.openapi import describe
from bot.forecast import WAITING, FullForecasts
from tests.admin.conftest import Answered, Api

CAMPAIGN = {
    "name": "Small",
    "message": {"text": "Hello"},
    "schedule": {"start": "2026-03-27"},
}


async def begun(api: Api, body: dict[str, Any]) -> Answered:
    made = await api.post("/campaigns", CAMPAIGN)
    return await api.post(f"/campaigns/{made.body['id']}:forecast", body)


@pytest.mark.usefixtures("staff")
async def test_one_over_everybody_is_accepted(api: Api) -> None:
    """It goes on after the answer."""
    answer = await begun(api, {"full": True, "seeds": 1})
    assert answer.status == 202, answer.body
    id = answer.body.pop("id")
    assert id.startswith("fct_")
    assert answer.body == {"status": "running", "progress": 0.0, "result": None, "detail": None}


@pytest.mark.usefixtures("staff")
async def test_its_result_is_what_a_plain_one_answers(api: Api) -> None:
    """Once it is done."""
    id = (await begun(api, {"full": True, "seeds": 1})).body["id"]
    async with asyncio.timeout(30):
        while (told := (await api.get(f"/forecasts/{id}")).body)["status"] == "running":  # noqa: ASYNC110 - as scripts do
            await asyncio.sleep(0.01)
    plain = await api.post(f"/campaigns/{told['result']['campaign']}:forecast", {"seeds": 1})
    assert (told["status"], told["progress"], told["result"]) == ("done", 1.0, plain.body)


@pytest.mark.usefixtures("staff")
async def test_the_one_that_is_too_many_is_a_conflict(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words."""

    async def endless(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(FullForecasts, "_work", endless)
    for _ in range(WAITING):
        assert (await begun(api, {"full": True})).status == 202
    answer = await begun(api, {"full": True})
    assert (answer.status, answer.body["detail"]) == (
        409,
        "4 forecasts over everybody are open; ask again once one of them has ended",
    )


async def test_an_unknown_one_is_not_found_in_words(api: Api) -> None:
    """It says how long one is kept, and what forgets it."""
    answer = await api.get("/forecasts/fct_x")
    assert answer.status == 404
    assert answer.body["detail"] == (
        "there is no forecast fct_x: one over everybody is kept for an hour after its end, and a restart of "
        "Clarion forgets it"
    )


async def test_one_that_could_not_be_launched_is_not_begun(api: Api) -> None:
    """The same fields are at fault."""
    answer = await begun(api, {"full": True})
    assert (answer.status, answer.fields) == (422, ["audience"])


def test_both_answers_are_described() -> None:
    """The one at once, and the one that is accepted."""
    responses = describe(ROUTES, prefix=PREFIX)["paths"][f"{PREFIX}/campaigns/{{id}}:forecast"]["post"]["responses"]
    shapes = {
        status: responses[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for status in ("200", "202")
    }
    assert shapes == {"200": "ForecastOut", "202": "FullForecastOut"}
