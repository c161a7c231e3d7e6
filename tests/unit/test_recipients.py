"""Taking recipients in: who a row means, what it changes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import pytest

from broadcast import recipients
from broadcast.errors import Conflict, NotFound
from broadcast.model import ChannelName, Recipient
from broadcast.ports import Page
from broadcast.recipients import Imported, Recipients, Row, RowError
from storage.memory import MemoryStore
from tests.admin.fakes import NOW, Counted, StillClock


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def people(store: MemoryStore) -> Recipients:
    return Recipients(store, StillClock(), Counted())


def row(line: int = 2, **cells: str) -> Row:
    return Row(line, cells)


async def only(people: Recipients) -> Recipient:
    listing = await people.find("", Page(1, 100))
    [person] = listing.items
    return person


# --- what is taken ------------------------------------------------------------------------------------


async def test_a_row_makes_a_person(people: Recipients) -> None:
    """Every column of SHAPES.md has its place; any other is a free attribute."""
    imported = await people.take(
        [
            row(
                external_id="E1007",
                email="Ann@example.com",
                first_name="Ann",
                last_name="Ash",
                locale="fr_FR",
                timezone="Europe/Paris",
                country="fr",
                tags="news; staff",
                lists="Staff",
                main_channel="Teams",
                teams_id="8C1F0000-0000-4000-8000-00000000000A",
                telegram_id="184467",
                viber_id="01234567890A=",
                city="Lyon",
            )
        ]
    )
    assert imported == Imported(created=1, updated=0, unchanged=0, errors=())
    assert await only(people) == Recipient(
        id="rcp_1",
        external_id="E1007",
        email="Ann@example.com",
        first_name="Ann",
        last_name="Ash",
        locale="fr-FR",
        timezone="Europe/Paris",
        country="FR",
        tags=frozenset({"news", "staff"}),
        lists=frozenset({"lst_staff"}),
        main_channel=ChannelName.TEAMS,
        identities={
            ChannelName.TEAMS: "8c1f0000-0000-4000-8000-00000000000a",
            ChannelName.TELEGRAM: "184467",
            ChannelName.VIBER: "01234567890A=",
        },
        attributes={"city": "Lyon"},
        created_at=NOW,
    )


async def test_an_empty_cell_changes_nothing(people: Recipients) -> None:
    """Blank is not a way to take something away."""
    await people.take([row(email="ann@example.com", first_name="Ann", country="FR")])
    imported = await people.take([row(email="ann@example.com", first_name=" ", country="", last_name="Ash")])
    person = await only(people)
    assert imported.updated == 1
    assert (person.first_name, person.country, person.last_name) == ("Ann", "FR", "Ash")


async def test_the_same_row_again_changes_nothing(people: Recipients) -> None:
    """It is counted as unchanged, also with the e-mail in another case."""
    await people.take([row(email="ann@example.com", tags="news", city="Lyon")])
    imported = await people.take([row(email="ann@example.com", tags="news", city="Lyon")])
    assert imported == Imported(created=0, updated=0, unchanged=1, errors=())


async def test_tags_and_lists_are_added(people: Recipients) -> None:
    """A later import takes nobody out of a list."""
    await people.take([row(email="ann@example.com", tags="a", lists="Staff")])
    await people.take([row(email="ann@example.com", tags="b", lists="Managers;lst_staff")])
    person = await only(people)
    assert person.tags == {"a", "b"}
    assert person.lists == {"lst_staff", "lst_managers"}


async def test_identities_and_attributes_are_merged(people: Recipients) -> None:
    """What a row does not name stays."""
    await people.take([row(email="ann@example.com", telegram_id="1", city="Lyon")])
    await people.take([row(email="ann@example.com", viber_id="v", floor="2")])
    person = await only(people)
    assert person.identities == {ChannelName.TELEGRAM: "1", ChannelName.VIBER: "v"}
    assert person.attributes == {"city": "Lyon", "floor": "2"}


async def test_an_import_brings_nobody_back(people: Recipients, store: MemoryStore) -> None:
    """Who unsubscribed stays unsubscribed, whatever a file says."""
    await people.take([row(email="ann@example.com")])
    await store.set_unsubscribed("rcp_1", NOW)
    await people.take([row(email="ann@example.com", first_name="Ann", unsubscribed_at="")])
    assert (await only(people)).unsubscribed_at == NOW


# --- whom a row means ---------------------------------------------------------------------------------


async def test_external_id_goes_before_email(people: Recipients) -> None:
    """A new e-mail for a known number is a change of address."""
    await people.take([row(external_id="E1", email="ann@example.com")])
    imported = await people.take([row(external_id="E1", email="ann.ash@example.com")])
    assert (imported.updated, (await only(people)).email) == (1, "ann.ash@example.com")


async def test_email_goes_before_channel_ids(people: Recipients) -> None:
    """The person of the e-mail gets the new channel id."""
    await people.take([row(email="ann@example.com", telegram_id="1")])
    await people.take([row(email="ANN@example.com", telegram_id="2")])
    assert (await only(people)).identities == {ChannelName.TELEGRAM: "2"}


@pytest.mark.parametrize("column", ["teams_id", "telegram_id", "viber_id"])
async def test_a_channel_id_is_enough(people: Recipients, column: str) -> None:
    """Each of the three names a person."""
    await people.take([Row(2, {column: "184467"})])
    imported = await people.take([Row(2, {column: "184467", "first_name": "Ann"})])
    assert (imported.updated, (await only(people)).first_name) == (1, "Ann")


async def test_the_second_row_of_a_person_updates_the_first(people: Recipients) -> None:
    """Within one file too, whichever key names them the second time."""
    imported = await people.take(
        [
            row(2, email="ann@example.com", external_id="E1"),
            row(3, external_id="E1", viber_id="v"),
            row(4, viber_id="v", first_name="Ann"),
        ]
    )
    assert imported == Imported(created=1, updated=2, unchanged=0, errors=())
    assert (await only(people)).first_name == "Ann"


async def test_an_address_that_was_given_up_may_go_to_somebody_else(people: Recipients) -> None:
    """One file may hand an e-mail from one person to another."""
    await people.take([row(external_id="E1", email="desk@example.com")])
    imported = await people.take(
        [row(2, external_id="E1", email="ann@example.com"), row(3, external_id="E2", email="desk@example.com")]
    )
    assert (imported.created, imported.updated, imported.errors) == (1, 1, ())


async def test_a_key_of_somebody_else_is_that_rows_error(people: Recipients) -> None:
    """Two people cannot share what names them; the row says whose it is."""
    await people.take([row(2, external_id="E1", telegram_id="1"), row(3, external_id="E2")])
    imported = await people.take([row(9, external_id="E2", telegram_id="1")])
    assert imported.errors == (
        RowError(9, "telegram_id", "1 belongs to another recipient (rcp_1); correct one of them"),
    )


class RacedStore(MemoryStore):
    """Refuses the first writes, as if somebody had come in through a webhook meanwhile."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Conflict("somebody came in")
        await super().save_recipients(recipients)


async def test_a_lost_race_is_run_again() -> None:
    """The batch is judged anew, and counted once."""
    people = Recipients(RacedStore(1), StillClock(), Counted())
    imported = await people.take([row(2, email="a@example.com"), row(3, email="b@example.com")])
    assert imported == Imported(created=2, updated=0, unchanged=0, errors=())


async def test_what_the_store_refuses_is_found_row_by_row() -> None:
    """One row that cannot be stored does not keep out the others."""
    people = Recipients(RacedStore(4), StillClock(), Counted())
    imported = await people.take([row(2, email="a@example.com"), row(3, email="b@example.com")])
    assert imported.created == 1
    assert [(error.line, error.message) for error in imported.errors] == [
        (2, "names more than one recipient; correct one of them")
    ]


# --- what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("timezone", "Europe/Pariss", "Europe/Pariss is no time zone; did you mean Europe/Paris?"),
        ("email", "ann.example.com", "ann.example.com is no e-mail address; write ann@example.com"),
        ("country", "France", "France is no country code; write two letters such as FR"),
        ("locale", "french!", "french! is no locale; write one such as fr or fr-FR"),
        ("main_channel", "telegramm", "telegramm is no channel; did you mean telegram?"),
        ("main_channel", "pigeon", "pigeon is no channel; write teams, telegram, viber"),
        ("telegram_id", "@ann", "@ann is no Telegram user id; it is a number such as 184467"),
        ("first_name", "x" * 201, "is 201 characters long; 200 is the most"),
        ("city", "Ly\x00on", "contains control characters; remove them"),
        ("lists", "x" * 201, "has an entry of 201 characters; 200 is the most"),
    ],
)
async def test_a_faulty_cell_is_said_with_line_and_field(
    people: Recipients, column: str, value: str, said: str
) -> None:
    """The row is left out, the rows around it are taken."""
    faulty = Row(17, {"external_id": "E1", column: value})
    imported = await people.take([row(16, external_id="E0"), faulty, row(18, external_id="E2")])
    assert imported == Imported(created=2, updated=0, unchanged=0, errors=(RowError(17, column, said),))


async def test_a_row_that_names_nobody_is_an_error(people: Recipients) -> None:
    """A name alone says not who is meant."""
    imported = await people.take([row(first_name="Ann")])
    said = "names nobody; fill in one of external_id, email, teams_id, telegram_id, viber_id"
    assert imported.errors == (RowError(2, "", said),)


async def test_errors_of_the_reader_are_listed_among_the_others(people: Recipients) -> None:
    """In the order of lines."""
    imported = await people.take([row(4, first_name="Ann"), RowError(3, "", "is no JSON")])
    assert [error.line for error in imported.errors] == [3, 4]


async def test_a_file_of_nothing_but_errors_has_a_bounded_answer(people: Recipients) -> None:
    """Beyond a thousand faulty rows only their number is told."""
    imported = await people.take(row(line, first_name="x") for line in range(2, 1_004))
    assert len(imported.errors) == recipients.MAX_ERRORS + 1
    assert imported.errors[-1] == RowError(1_003, "", "2 more faulty rows, not listed")


# --- many rows ----------------------------------------------------------------------------------------


async def test_rows_are_taken_in_batches(store: MemoryStore) -> None:
    """Never more than a few hundred are held at once, and none is lost between two batches."""
    held: list[int] = []

    class Watching(MemoryStore):
        async def save_recipients(self, recipients: Sequence[Recipient]) -> None:
            held.append(len(recipients))
            await super().save_recipients(recipients)

    def rows() -> Iterator[Row]:
        yield from (row(n, external_id=f"E{n}") for n in range(1_200))

    imported = await Recipients(Watching(), StillClock(), Counted()).take(rows())
    assert (imported.created, held) == (1_200, [500, 500, 200])


async def test_rows_may_come_one_by_one(people: Recipients) -> None:
    """A reader that awaits is taken as well."""

    async def rows() -> AsyncIterator[Row]:
        yield row(email="ann@example.com")

    assert (await people.take(rows())).created == 1


# --- lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("Staff", "lst_staff"),
        ("lst_staff", "lst_staff"),
        ("lst_Staff", "lst_staff"),
        ("New  staff", "lst_new_staff"),
        ("Équipe", "lst_equipe"),
        ("Отдел", "lst_211702b0"),
    ],
)
def test_a_list_has_an_id_made_of_its_name(name: str, id: str) -> None:
    """So that scripts can name it before they see it."""
    assert recipients.list_id(name, {}) == id


def test_a_list_there_is_is_found_by_id_and_by_name() -> None:
    """Regardless of case, whatever its id looks like."""
    lists = {"lst_4TQ7": "Staff"}
    assert [recipients.list_id(name, lists) for name in ("lst_4TQ7", "STAFF")] == ["lst_4TQ7", "lst_4TQ7"]


def test_two_names_that_look_alike_are_two_lists() -> None:
    """`R D` does not end up in `R&D`."""
    assert recipients.list_id("R D", {"lst_r_d": "R&D"}) not in {"lst_r_d", "lst_"}


async def test_lists_are_made_on_first_use(people: Recipients, store: MemoryStore) -> None:
    """With the name the file gives them; a list that is there keeps its own."""
    await people.take(
        [row(email="ann@example.com", lists="New staff; lst_managers"), row(email="b@c.d", lists="new staff")]
    )
    assert await store.list_ids() == {"lst_new_staff": "New staff", "lst_managers": "managers"}


async def test_a_faulty_row_makes_no_list(people: Recipients, store: MemoryStore) -> None:
    """What is left out leaves nothing behind."""
    await people.take([row(email="nobody", lists="Staff")])
    assert await store.list_ids() == {}


# --- looking up ---------------------------------------------------------------------------------------


async def test_nobody_is_not_found(people: Recipients) -> None:
    """An unknown id is said."""
    with pytest.raises(NotFound):
        await people.get("rcp_x")


async def test_people_are_found_by_part_of_a_name(people: Recipients) -> None:
    """Name, e-mail and external id, regardless of case."""
    await people.take([row(2, email="ann@example.com", first_name="Ann"), row(3, email="ben@example.com")])
    assert [person.email for person in (await people.find("ANN", Page())).items] == ["ann@example.com"]


async def test_a_person_keeps_their_conversations(people: Recipients, store: MemoryStore) -> None:
    """None before anybody spoke."""
    await people.take([row(email="ann@example.com")])
    assert await people.conversations("rcp_1") == []
    assert replace(await people.get("rcp_1"), created_at=None) == Recipient("rcp_1", email="ann@example.com")
