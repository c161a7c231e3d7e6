"""Recipients over HTTP: files in, people out."""

from __future__ import annotations

import io

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient
from openpyxl import Workbook

from bot.admin import bodies
from bot.admin.auth import Role
from broadcast.model import BroadcastStatus, ChannelName, Conversation, ConversationState
from storage.memory import MemoryStore
from tests.admin.conftest import Api
from tests.admin.fakes import NOW
from tests.storage.builders import broadcast

CSV = "external_id,email,timezone\nE1,ann@example.com,Europe/Paris\nE2,ben@example.com,Europe/Pariss\n"
TYPE_CSV = {"Content-Type": "text/csv; charset=utf-8"}
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ANSWER = {
    "created": 1,
    "updated": 0,
    "unchanged": 0,
    "errors": [
        {"line": 3, "field": "timezone", "message": "Europe/Pariss is no time zone; did you mean Europe/Paris?"}
    ],
}


def spreadsheet() -> bytes:
    workbook = Workbook()
    for line in CSV.splitlines():
        workbook.worksheets[0].append(line.split(","))
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


def form(content: bytes, *, name: str = "file", filename: str = "people.csv", kind: str = "text/csv") -> FormData:
    made = FormData()
    made.add_field("note", "first")
    made.add_field(name, content, filename=filename, content_type=kind)
    return made


# --- import -------------------------------------------------------------------------------------------


async def test_csv_is_taken_in(api: Api) -> None:
    """A faulty row is that row's error, with line and field; the rest is imported."""
    answer = await api.post("/recipients:import", raw=CSV, headers=TYPE_CSV)
    assert (answer.status, answer.body) == (200, ANSWER)


async def test_a_spreadsheet_is_taken_in(api: Api) -> None:
    """The same rows give the same answer."""
    answer = await api.post("/recipients:import", raw=spreadsheet(), headers={"Content-Type": XLSX})
    assert (answer.status, answer.body) == (200, ANSWER)


async def test_json_lines_are_taken_in(api: Api) -> None:
    """The same keys as columns."""
    raw = '{"email": "ann@example.com", "tags": ["a"]}\n{"email": 7}\n'
    answer = await api.post("/recipients:import", raw=raw, headers={"Content-Type": "application/x-ndjson"})
    assert (answer.body["created"], answer.body["errors"][0]["line"]) == (1, 2)


async def test_a_file_of_a_form_is_taken_in(api: Api) -> None:
    """As browsers and curl -F send it; other fields do not matter."""
    answer = await api.post("/recipients:import", raw=form(CSV.encode()))
    assert (answer.status, answer.body) == (200, ANSWER)


async def test_a_form_tells_the_format_by_the_files_name(api: Api) -> None:
    """Where its type says nothing."""
    sent = form(spreadsheet(), filename="people.xlsx", kind="application/octet-stream")
    assert (await api.post("/recipients:import", raw=sent)).body == ANSWER


async def test_importing_twice_changes_nothing(api: Api) -> None:
    """The second answer says so."""
    raw = "email\nann@example.com\n"
    await api.post("/recipients:import", raw=raw, headers=TYPE_CSV)
    answer = await api.post("/recipients:import", raw=raw, headers=TYPE_CSV)
    assert answer.body == {"created": 0, "updated": 0, "unchanged": 1, "errors": []}


async def test_a_form_sent_again_under_its_key_is_the_same_call(api: Api) -> None:
    """What the form is wrapped in differs each time; the file does not."""
    key = {"Idempotency-Key": "import-1"}
    first = await api.post("/recipients:import", raw=form(b"email\nann@example.com\n"), headers=key)
    again = await api.post("/recipients:import", raw=form(b"email\nann@example.com\n"), headers=key)
    assert (again.status, again.body, again.body["created"]) == (200, first.body, 1)


@pytest.mark.parametrize("kind", ["application/pdf", "application/x-www-form-urlencoded", "text/plain"])
async def test_another_kind_of_file_is_refused(api: Api, kind: str) -> None:
    """415, naming what is taken."""
    answer = await api.post("/recipients:import", raw=CSV, headers={"Content-Type": kind})
    assert (answer.status, "text/csv" in answer.body["detail"]) == (415, True)


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (b"", "text/csv", "is empty"),
        (b"ann@example.com\n", "text/csv", "the first row must be a header"),
        ("email\nZo\u00e9@example.com".encode("latin-1"), "text/csv", "is not UTF-8"),
        (b"email\nann@example.com\n", XLSX, "is no XLSX spreadsheet"),
    ],
)
async def test_an_unreadable_file_is_at_fault_as_a_whole(api: Api, raw: bytes, kind: str, said: str) -> None:
    """422 on the field `file`, in words."""
    answer = await api.post("/recipients:import", raw=raw, headers={"Content-Type": kind})
    assert (answer.status, answer.fields) == (422, ["file"])
    assert said in answer.body["errors"][0]["message"]


async def test_a_form_without_a_file_is_a_bad_request(api: Api) -> None:
    """The answer says how to send one."""
    made = FormData({"note": "x"}, default_to_multipart=True)
    answer = await api.post("/recipients:import", raw=made)
    assert (answer.status, "curl -F" in answer.body["detail"]) == (400, True)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
async def test_a_form_that_is_none_is_a_bad_request(api: Api, kind: str) -> None:
    """Whatever claims to be a form and is not."""
    answer = await api.post("/recipients:import", raw=b"email\nann@example.com", headers={"Content-Type": kind})
    assert answer.status == 400


async def test_a_file_has_a_bound(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """413, in a form too."""
    monkeypatch.setattr(bodies, "MAX_UPLOAD", 1_000)
    large = b"email\n" + b"x" * 1_000
    for raw, headers in ((large, TYPE_CSV), (form(large), {})):
        assert (await api.post("/recipients:import", raw=raw, headers=headers)).status == 413


# --- looking up ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("staff")
async def test_people_are_listed_by_id(api: Api) -> None:
    """With the columns of the import as fields."""
    answer = await api.get("/recipients?per_page=1")
    assert (answer.body["total"], answer.body["per_page"]) == (3, 1)
    assert answer.body["items"] == [
        {
            "id": "rcp_1",
            "external_id": "E1007",
            "email": "ann@example.com",
            "first_name": "Ann",
            "last_name": "Ash",
            "locale": None,
            "timezone": None,
            "country": None,
            "tags": [],
            "lists": ["lst_staff"],
            "main_channel": None,
            "teams_id": "entra-ann",
            "telegram_id": None,
            "viber_id": None,
            "attributes": {},
            "unsubscribed_at": None,
            "created_at": "2026-03-26T15:02:11Z",
        }
    ]


@pytest.mark.usefixtures("staff")
@pytest.mark.parametrize(("q", "found"), [("ASH", 1), ("e1007", 1), ("example.com", 3), ("zoe", 0)])
async def test_people_are_found(api: Api, q: str, found: int) -> None:
    """By part of name, e-mail or external id, regardless of case."""
    assert (await api.get(f"/recipients?q={q}")).body["total"] == found


@pytest.mark.usefixtures("staff")
async def test_a_person_is_shown_with_their_conversations(api: Api, store: MemoryStore) -> None:
    """Where they can be reached, and whether."""
    blocked = ConversationState.BLOCKED
    await store.save_conversations(
        [Conversation("cnv_1", "telegram/news", ChannelName.TELEGRAM, "rcp_2", "184467", {}, blocked, NOW)]
    )
    answer = await api.get("/recipients/rcp_2")
    assert (answer.body["email"], answer.body["telegram_id"]) == ("ben@example.com", "184467")
    assert answer.body["conversations"] == [
        {
            "account": "telegram/news",
            "channel": "telegram",
            "state": "blocked",
            "last_seen": "2026-03-26T15:02:11Z",
        }
    ]


# --- erasure ------------------------------------------------------------------------------------------


@pytest.fixture
def admin(client: TestClient[web.Request, web.Application], tokens: dict[Role, str]) -> Api:
    return Api(client, tokens[Role.ADMIN])


@pytest.mark.usefixtures("staff")
async def test_an_editor_erases_nobody(api: Api) -> None:
    """It cannot be taken back, so it takes an admin."""
    assert (await api.post("/recipients/rcp_1:erase")).status == 403
    assert (await api.get("/recipients/rcp_1")).status == 200


@pytest.mark.usefixtures("staff")
async def test_whoever_is_erased_is_not_there_any_more(admin: Api) -> None:
    """With since when; a second time there is nobody."""
    answer = await admin.post("/recipients/rcp_1:erase")
    assert (answer.status, answer.body) == (200, {"id": "rcp_1", "erased_at": "2026-03-26T15:02:11Z"})
    assert (await admin.get("/recipients/rcp_1")).status == 404
    assert (await admin.get("/recipients?q=ann")).body["total"] == 0
    assert (await admin.post("/recipients/rcp_1:erase")).status == 404


@pytest.mark.usefixtures("staff")
async def test_nobody_is_erased_while_a_broadcast_is_planned(admin: Api, store: MemoryStore) -> None:
    """409, and what to do."""
    await store.save_broadcast(broadcast(status=BroadcastStatus.INITIALIZING), expected=None)
    answer = await admin.post("/recipients/rcp_1:erase")
    assert (answer.status, answer.body["detail"]) == (
        409,
        "broadcast brd_1 is being planned; try again in a minute",
    )
