"""The description: of every route, open to all, and true of the bodies that are promised."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from bot.admin import PREFIX, admin_app
from bot.admin.app import ROUTES
from bot.admin.openapi import describe
from bot.admin.routing import SAFE
from bot.admin.services import AdminServices
from bot.admin.shapes.broadcasts import BroadcastOut, ReportOut
from bot.admin.shapes.campaigns import CampaignBody, LaunchBody
from bot.admin.shapes.common import Problem
from bot.admin.shapes.deliveries import DeliveryOut, DeliveryRow
from bot.admin.shapes.recipients import ImportOut
from bot.admin.validation import Shape
from tests.admin import samples
from tests.admin.conftest import Api
from tests.admin.schema import mismatches

DOCUMENT = describe(ROUTES, prefix=PREFIX)
BROADCAST = {**samples.BROADCAST, "kind": "campaign", "reason_detail": None}
REPORT = {**samples.REPORT, "possibly_doubled": 0}
ROW = {**samples.DELIVERY, "possibly_doubled": False}
ATTEMPT, READ = samples.TIMELINE

#: Each promised body, with the fields that were added since.
PROMISED: list[tuple[type[Shape], dict[str, Any]]] = [
    (CampaignBody, samples.CAMPAIGN),
    (LaunchBody, samples.LAUNCH),
    (BroadcastOut, BROADCAST),
    (ReportOut, REPORT),
    (DeliveryRow, ROW),
    (DeliveryOut, {**ROW, "timeline": [{**ATTEMPT, "detail": None}, READ]}),
    (ImportOut, samples.IMPORTED),
    (Problem, samples.PROBLEM),
]


async def test_the_description_is_open(client: TestClient[web.Request, web.Application]) -> None:
    """It holds no secrets, so it asks for no token."""
    answer = await Api(client, None).get("/openapi.json")
    assert (answer.status, answer.content_type, answer.body["openapi"]) == (200, "application/json", "3.1.1")


def test_every_route_is_described(services: AdminServices) -> None:
    """What is registered and what is described is the same; HEAD comes with every GET."""
    served = {
        (
            route.method,
            PREFIX + re.sub(r"\{(\w+):[^}]+\}", r"{\1}", route.resource.canonical if route.resource else ""),
        )
        for route in admin_app(services).router.routes()
        if route.method != "HEAD"
    }
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == served


def test_every_route_says_of_itself_what_it_does() -> None:
    """With a name of its own, and its errors."""
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert all(operation["summary"] for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) == len(ROUTES)


def test_every_route_but_the_description_asks_for_a_token() -> None:
    """And says which role it needs."""
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            is_open = path.endswith("/openapi.json")
            assert operation["security"] == ([] if is_open else [{"token": []}])
            assert ("401" in operation["responses"]) is not is_open


def test_every_unsafe_call_takes_a_key() -> None:
    """`Idempotency-Key` is described with each of them."""
    for route in ROUTES:
        parameters = DOCUMENT["paths"][PREFIX + route.path][route.method.lower()].get("parameters", [])
        assert ("Idempotency-Key" in {one["name"] for one in parameters}) == (route.method != SAFE)


def test_what_may_be_gone_says_so() -> None:
    """410 with the lists and exports of deliveries, and with nothing else."""
    gone = {
        path for path, item in DOCUMENT["paths"].items() if "410" in item.get("get", {"responses": {}})["responses"]
    }
    stem = f"{PREFIX}/broadcasts/{{id}}/deliveries"
    assert gone == {stem, f"{stem}.csv", f"{stem}.xlsx"}


def test_a_filter_is_described_with_its_words() -> None:
    """Each query parameter stands alone, with what it may say."""
    parameters = DOCUMENT["paths"][f"{PREFIX}/broadcasts/{{id}}/deliveries"]["get"]["parameters"]
    state = next(one for one in parameters if one["name"] == "state")
    assert (state["in"], state["required"], state["explode"]) == ("query", False, False)
    assert "unscheduled" in state["schema"]["items"]["enum"]


@pytest.mark.parametrize(("shape", "body"), PROMISED, ids=lambda one: getattr(one, "__name__", ""))
def test_the_description_is_true_of_what_is_promised(shape: type[Shape], body: dict[str, Any]) -> None:
    """Each body that scripts stand on is what its schema says."""
    assert list(mismatches(body, DOCUMENT["components"]["schemas"][shape.__name__], DOCUMENT)) == []


@pytest.mark.parametrize(("shape", "body"), PROMISED, ids=lambda one: getattr(one, "__name__", ""))
def test_a_promised_body_is_read_and_written_without_loss(shape: type[Shape], body: dict[str, Any]) -> None:
    """Every promised field is there again, with the very value."""
    written = shape.model_validate(body, strict=False).model_dump(mode="json", exclude_unset=True)
    assert written == body


def test_what_the_schema_does_not_say_is_found() -> None:
    """The check itself sees a field too many, one too few, and one of another kind."""
    schema = DOCUMENT["components"]["schemas"]["TryBody"]
    assert [list(mismatches(body, schema, DOCUMENT)) for body in ({"to": "x", "b": 1}, {}, {"to": 1})] == [
        [": b is unknown"],
        [": to is missing"],
        [".to: 1 is not string"],
    ]
