"""Who may call, what an error looks like, and what a repeated call gets."""

from __future__ import annotations

import asyncio
import gzip
import io
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request

from bot.admin import auth, bodies, problems
from bot.admin.app import ROUTES
from bot.admin.auth import Role
from bot.admin.routing import Route
from bot.admin.services import AdminServices
from broadcast.errors import Ambiguous, ClarionError, Conflict, NotFound, StoreUnavailable
from broadcast.ports import ApiToken
from storage.memory import MemoryStore
from tests.admin.conftest import BOOTSTRAP, Api
from tests.admin.fakes import NOW, StillClock

Client = TestClient[web.Request, web.Application]

SMALL = {"name": "Small", "message": {"text": "Hello"}}
GUARDED = [route for route in ROUTES if route.role is not None]


def address(route: Route) -> str:
    return route.path.replace("{id}", "nothing")


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


# --- roles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_without_a_token_nobody_gets_in(client: Client, route: Route) -> None:
    """Every route but the description asks for one, and says how."""
    answer = await Api(client, None).call(route.method, address(route))
    assert (answer.status, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", [route for route in GUARDED if route.role is not Role.VIEWER], ids=named)
async def test_a_viewer_changes_nothing(client: Client, tokens: dict[Role, str], route: Route) -> None:
    """403 comes before anything is read or looked up."""
    answer = await Api(client, tokens[Role.VIEWER]).call(route.method, address(route), raw=b"{")
    assert answer.status == 403
    assert answer.body["detail"] == f"this call needs the role {route.role}; the token has viewer"


@pytest.mark.parametrize("route", [route for route in GUARDED if "{id}" in route.path], ids=named)
async def test_an_unknown_id_is_not_found(client: Client, tokens: dict[Role, str], route: Route) -> None:
    """On every route that takes one."""
    body = {"to": "ann@example.com"} if route.path.endswith(":try") else {}
    api = Api(client, tokens[Role.ADMIN])
    answer = await api.call(route.method, address(route), **({} if route.method == "GET" else {"json": body}))
    assert (answer.status, answer.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("needed", list(Role))
def test_a_role_covers_those_before_it(role: Role, needed: Role) -> None:
    """viewer, editor, approver, admin."""
    order = [Role.VIEWER, Role.EDITOR, Role.APPROVER, Role.ADMIN]
    assert role.covers(needed) == (order.index(role) >= order.index(needed))


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer " + "x" * 600, "Bearer \udcff"]
)
async def test_a_token_that_is_none_is_refused(client: Client, header: str) -> None:
    """Another scheme, an unknown secret, one of absurd length."""
    answer = await Api(client, None).get("/campaigns", headers={"Authorization": header})
    assert answer.status == 401


async def test_the_scheme_is_read_regardless_of_case(client: Client, tokens: dict[Role, str]) -> None:
    """RFC 9110 11.1."""
    headers = {"Authorization": f"bearer {tokens[Role.VIEWER]}"}
    assert (await Api(client, None).get("/campaigns", headers=headers)).status == 200


async def test_the_token_of_the_settings_is_an_admin(client: Client) -> None:
    """And what it does carries its name."""
    api = Api(client, BOOTSTRAP)
    assert (await api.post("/campaigns", SMALL)).status == 201


async def test_a_token_with_a_role_of_no_meaning_is_none(client: Client, store: MemoryStore) -> None:
    """A record from another version opens nothing."""
    await store.save_token(ApiToken("tok_x", auth.token_hash("secret"), "emperor", "x", NOW))
    assert (await Api(client, "secret").get("/campaigns")).status == 401


async def test_only_the_hash_of_a_token_is_kept(store: MemoryStore, tokens: dict[Role, str]) -> None:
    """Whoever reads the store cannot call."""
    kept = {token.hash for token in await store.tokens()}
    assert kept == {auth.token_hash(secret) for secret in tokens.values()}
    assert not kept & set(tokens.values())


# --- problems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/campaigns/x:fly", 404),
        ("/campaigns/x:launch", 405),
        ("/broadcasts/x/nothing", 404),
        ("", 404),
    ],
)
async def test_an_unknown_address_is_a_problem_too(api: Api, path: str, status: int) -> None:
    """Under the prefix nothing answers in another form."""
    answer = await api.get(path)
    assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_wrong_method_says_which_are_right(api: Api) -> None:
    """405 with the methods that there are."""
    answer = await api.call("DELETE", "/campaigns")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD,POST")
    assert answer.body["detail"] == "DELETE is not possible here; possible: GET, HEAD, POST"


@pytest.mark.parametrize(
    "raw", [b"{", b'{"name": ', b"name=x", b'{"name": "\\ud800"}', b"\xff\xfe", b'{"a": NaN,}']
)
async def test_a_body_that_is_no_json_is_a_bad_request(api: Api, raw: bytes) -> None:
    """400, with the place."""
    answer = await api.post("/campaigns", raw=raw)
    assert (answer.status, "the body is no JSON" in answer.body["detail"]) == (400, True)


async def test_a_body_has_a_bound(api: Api) -> None:
    """413, whether its length is told beforehand or not."""
    large = b" " * (bodies.MAX_JSON + 1)

    async def unannounced() -> Any:
        yield large

    for raw in (io.BytesIO(large), unannounced()):
        assert (await api.post("/campaigns", raw=raw)).status == 413


async def test_a_packed_body_is_bounded_as_it_unpacks(api: Api) -> None:
    """A small body cannot become a large one."""
    packed = gzip.compress(b" " * (bodies.MAX_JSON + 1))
    answer = await api.post("/campaigns", raw=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413


async def test_an_unsafe_call_takes_no_query(api: Api) -> None:
    """What would be ignored is refused."""
    answer = await api.post("/campaigns?dry_run=true", SMALL)
    assert (answer.status, answer.fields) == (422, ["dry_run"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no"), 404),
        (Conflict("no"), 409),
        (Ambiguous("no"), 409),
        (StoreUnavailable("the disk is full"), 503),
        (ClarionError("other"), 500),
        (RuntimeError("secret"), 500),
    ],
)
def test_every_error_of_ours_has_its_status(error: Exception, status: int) -> None:
    """One table says so; what nobody foresaw tells nothing of itself."""
    answer = problems.problem(error, make_mocked_request("GET", "/"))
    assert answer.status == status
    assert (b"secret" in (answer.body or b"")) is False  # type: ignore[operator]  # bodies here are bytes
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_nobody_on_the_way_keeps_an_answer(api: Api) -> None:
    """Answers speak of people; problems as well."""
    for path in ("/recipients", "/recipients/rcp_x"):
        assert (await api.get(path)).headers["Cache-Control"] == "no-store"


# --- the same call again ------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "3f1c"}


async def total(api: Api) -> int:
    return int((await api.get("/campaigns")).body["total"])


async def test_the_same_call_again_gets_the_first_answer(api: Api) -> None:
    """And is not done again."""
    first = await api.post("/campaigns", SMALL, headers=KEY)
    again = await api.post("/campaigns", SMALL, headers=KEY)
    assert (again.status, again.body, again.content_type) == (201, first.body, "application/json")
    assert (again.headers["Idempotency-Replayed"], await total(api)) == ("true", 1)


async def test_another_body_under_the_same_key_is_refused(api: Api) -> None:
    """422, naming the header; nothing is done."""
    await api.post("/campaigns", SMALL, headers=KEY)
    answer = await api.post("/campaigns", {**SMALL, "name": "Other"}, headers=KEY)
    assert (answer.status, answer.fields, await total(api)) == (422, ["Idempotency-Key"], 1)


async def test_a_problem_is_kept_as_well(api: Api) -> None:
    """The first answer is the answer, also where it was a refusal."""
    first = await api.post("/campaigns", {"name": ""}, headers=KEY)
    again = await api.post("/campaigns", {"name": ""}, headers=KEY)
    assert (first.status, again.status, again.body) == (422, 422, first.body)
    assert again.content_type == "application/problem+json"


@pytest.mark.parametrize(("later", "count"), [(timedelta(hours=24), 1), (timedelta(hours=24, seconds=1), 2)])
async def test_a_key_is_good_for_a_day(api: Api, clock: StillClock, later: timedelta, count: int) -> None:
    """After it, the key is a new one."""
    await api.post("/campaigns", SMALL, headers=KEY)
    clock.move(later)
    await api.post("/campaigns", SMALL, headers=KEY)
    assert await total(api) == count


async def test_a_key_is_one_callers_own(api: Api, client: Client) -> None:
    """Two tokens may use the same words."""
    await api.post("/campaigns", SMALL, headers=KEY)
    await Api(client, BOOTSTRAP).post("/campaigns", SMALL, headers=KEY)
    assert await total(api) == 2


async def test_a_key_is_for_one_address(api: Api) -> None:
    """The same key and an empty body elsewhere is another call."""
    made = (await api.post("/campaigns", SMALL)).body
    await api.post(f"/campaigns/{made['id']}:validate", headers=KEY)
    answer = await api.post("/broadcasts/brd_x:pause", headers=KEY)
    assert answer.status == 404


async def test_two_at_the_same_time_are_one(api: Api) -> None:
    """The second waits for the first, and gets its answer."""
    answers = await asyncio.gather(*(api.post("/campaigns", SMALL, headers=KEY) for _ in range(5)))
    assert len({answer.body["id"] for answer in answers}) == 1
    assert await total(api) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u200b"])
async def test_a_key_has_a_form(api: Api, key: str) -> None:
    """1 to 255 printable characters."""
    answer = await api.post("/campaigns", SMALL, headers={"Idempotency-Key": key})
    assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])


async def test_what_was_done_is_told_even_where_it_cannot_be_noted(
    api: Api, services: AdminServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the caller would do it again."""

    async def failing(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(services.store, "remember_answer", failing)
    assert (await api.post("/campaigns", SMALL, headers=KEY)).status == 201


async def test_a_fault_of_ours_is_not_kept(
    api: Api, services: AdminServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store could not do is done when it is tried again."""
    save = services.store.save_campaign

    async def failing(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(services.store, "save_campaign", failing)
    answer = await api.post("/campaigns", SMALL, headers=KEY)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    monkeypatch.setattr(services.store, "save_campaign", save)
    assert (await api.post("/campaigns", SMALL, headers=KEY)).status == 201
