"""Files of recipients: what people's spreadsheets and scripts really write, and what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from datetime import date
from typing import Any

import pytest
from openpyxl import Workbook

from bot import importing
from bot.importing import Format, Item
from broadcast.errors import Invalid
from broadcast.recipients import Row, RowError


def read(content: str | bytes, format: Format = Format.CSV, *, limit: int = 100) -> list[Item]:
    raw = content.encode() if isinstance(content, str) else content
    return list(importing.rows(io.BytesIO(raw), format, limit=limit))


def refusal(content: str | bytes, format: Format = Format.CSV) -> str:
    with pytest.raises(Invalid) as error:
        read(content, format)
    [fault] = error.value.faults
    assert fault.field == "file"
    return fault.message


def spreadsheet(*rows: list[Any]) -> bytes:
    workbook = Workbook()
    sheet = workbook.worksheets[0]
    for row in rows:
        sheet.append(row)
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


# --- CSV ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    """Comma, semicolon and tab are told apart by the header."""
    text = f"email{delimiter}first_name\nann@example.com{delimiter}Ann\n"
    assert read(text) == [Row(2, {"email": "ann@example.com", "first_name": "Ann"})]


def test_a_header_with_other_delimiters_in_its_names_is_read() -> None:
    """The delimiter that gives columns we know wins over one that gives more."""
    assert read("email;a,b,c,d\nann@example.com;x\n") == [Row(2, {"email": "ann@example.com", "a_b_c_d": "x"})]


def test_one_column_is_enough() -> None:
    """A file may hold nothing but e-mail addresses."""
    assert read("email\nann@example.com") == [Row(2, {"email": "ann@example.com"})]


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_the_header() -> None:
    """UTF-8 with a byte order mark is read like UTF-8."""
    assert read(b"\xef\xbb\xbfemail\nann@example.com\n") == [Row(2, {"email": "ann@example.com"})]


def test_lines_are_counted_as_an_editor_does() -> None:
    """Blank lines and line ends inside quotes count; a row is where it begins."""
    text = 'email,note\n\nann@example.com,"two\nlines"\r\nben@example.com,x\n'
    assert [(item.line) for item in read(text)] == [3, 5]


def test_a_header_is_read_regardless_of_case_and_spaces() -> None:
    """`First Name` is `first_name`; what we do not know becomes a name that a placeholder can say."""
    [row] = read("E-Mail,EMAIL,First Name,Cost centre (HR)\nx,ann@example.com,Ann,12\n")
    assert row == Row(2, {"e_mail": "x", "email": "ann@example.com", "first_name": "Ann", "cost_centre_hr": "12"})


def test_empty_cells_are_left_out() -> None:
    """An empty cell says nothing, and a row of them is no row."""
    assert read("email,country\nann@example.com, \n,\n") == [Row(2, {"email": "ann@example.com"})]


def test_a_cell_without_a_header_is_that_rows_error() -> None:
    """A shifted row is not imported into the wrong columns."""
    assert read("email,\nann@example.com,x\nben@example.com\n") == [
        RowError(2, "", "has x in column 2, which the header does not name"),
        Row(3, {"email": "ben@example.com"}),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("ann@example.com,Ann\n", "the first row must be a header"),
        ("email,Email\n", "two columns email"),
        ("email,1st\n", "has a column 1st; begin its name with a letter"),
        ("email\n".encode("utf-16"), "is UTF-16; save it as CSV UTF-8"),
        ("email,name\nann@example.com,Zoé\n".encode("latin-1"), "is not UTF-8 (line 2); save it as CSV UTF-8"),
    ],
)
def test_a_file_without_a_header_that_can_be_read_is_refused(content: str | bytes, said: str) -> None:
    """Nothing of it is imported, and the message says what to do."""
    assert said in refusal(content)


def test_too_many_columns_are_refused() -> None:
    """A header has a bound."""
    assert "200 is the most" in refusal("email," + ",".join(f"a{n}" for n in range(200)))


def test_an_open_quote_ends_the_file_with_an_error() -> None:
    """What swallows the rest of a file is said; what came before is taken."""
    first, second = read('email,note\nann@example.com,x\nben@example.com,"' + "y" * 200_000)
    assert first == Row(2, {"email": "ann@example.com", "note": "x"})
    assert isinstance(second, RowError)
    assert (second.line, "nothing after it was taken" in second.message) == (3, True)


@pytest.mark.parametrize("format", [Format.CSV, Format.JSON_LINES])
def test_rows_beyond_the_limit_are_left_out_once(format: Format) -> None:
    """One error says from where on, however many follow."""
    text = "email\na@b.c\nd@e.f\ng@h.i\nj@k.l" if format is Format.CSV else '{"email": "a@b.c"}\n' * 5
    items = read(text, format, limit=2)
    assert [type(item) for item in items] == [Row, Row, RowError]


# --- XLSX ---------------------------------------------------------------------------------------------


def test_the_first_sheet_is_read() -> None:
    """Row numbers are the spreadsheet's; numbers are written as people see them."""
    content = spreadsheet(
        ["External ID", "Telegram id", "Started", "Share"],
        [1007, 184467.0, date(2026, 3, 27), 0.5],
        [],
        ["E1008", None, None, True],
    )
    assert read(content, Format.XLSX) == [
        Row(2, {"external_id": "1007", "telegram_id": "184467", "started": "2026-03-27", "share": "0.5"}),
        Row(4, {"external_id": "E1008", "share": "true"}),
    ]


def test_a_header_may_stand_below_blank_rows() -> None:
    """The first row with something in it is the header."""
    assert read(spreadsheet([], [], ["email"], ["ann@example.com"]), Format.XLSX) == [
        Row(4, {"email": "ann@example.com"})
    ]


def test_a_cell_with_an_error_is_that_rows_error() -> None:
    """A formula that came to nothing is no value."""
    content = spreadsheet(["email", "city"], ["ann@example.com", "#N/A"], ["ben@example.com", "Bonn"])
    assert read(content, Format.XLSX) == [
        RowError(2, "", "has a cell with the error #N/A; correct it"),
        Row(3, {"email": "ben@example.com", "city": "Bonn"}),
    ]


def test_a_cell_beside_the_header_is_that_rows_error() -> None:
    """A value in a column without a name is not dropped in silence."""
    [item] = read(spreadsheet(["email"], ["ann@example.com", "x"]), Format.XLSX)
    assert item == RowError(2, "", "has x in column 2, which the header does not name")


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"email\nann@example.com",
        zipped("readme.txt", b"no workbook"),
        spreadsheet(["email"])[:-40],
        zipped("[Content_Types].xml", b"<broken"),
    ],
)
def test_what_is_no_spreadsheet_is_refused(content: bytes) -> None:
    """A CSV with the wrong name, a torn file and a foreign archive are said in words."""
    assert refusal(content, Format.XLSX) == "is no XLSX spreadsheet that can be read; save it as XLSX or CSV UTF-8"


def test_an_empty_spreadsheet_is_refused() -> None:
    """It has no header."""
    assert "is empty" in refusal(spreadsheet(), Format.XLSX)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size it claims is read before anything is unpacked."""
    monkeypatch.setattr(importing, "MAX_UNPACKED", 1024 * 1024)
    assert "unpacks to more than" in refusal(zipped("xl/worksheets/sheet1.xml", b"0" * 1024 * 1025), Format.XLSX)


# --- JSON lines ---------------------------------------------------------------------------------------


def test_values_are_written_as_cells() -> None:
    """Numbers, lists and null say what a cell with them would."""
    text = '{"external_id": 1007, "tags": ["a", "b"], "city": null, "remote": true}\n\n{"email": "ann@example.com"}'
    assert read(text, Format.JSON_LINES) == [
        Row(1, {"external_id": "1007", "tags": "a;b", "remote": "true"}),
        Row(3, {"email": "ann@example.com"}),
    ]


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        ('{"email": ', "", "is no JSON"),
        ('["ann@example.com"]', "", "is no object"),
        ('{"attributes": {"city": "Bonn"}}', "attributes", "attributes stand beside the others"),
        ('{"tags": [1]}', "tags", "list of texts"),
        ('{"1": "x"}', "1", "begin it with a letter"),
    ],
)
def test_a_faulty_line_is_that_lines_error(line: str, field: str, said: str) -> None:
    """The lines around it are taken."""
    error, row = read(f'{line}\n{{"email": "ann@example.com"}}', Format.JSON_LINES)
    assert isinstance(error, RowError)
    assert (error.line, error.field, said in error.message) == (1, field, True)
    assert isinstance(row, Row)


def test_a_line_without_end_is_not_read_into_memory() -> None:
    """Reading stops at the bound of a line."""
    [error] = read(b'"' + b"x" * (2 * importing.MAX_LINE), Format.JSON_LINES)
    assert isinstance(error, RowError)


# --- which format -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "filename", "format"),
    [
        ("text/csv", "", Format.CSV),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "people.csv", Format.XLSX),
        ("application/x-ndjson", "", Format.JSON_LINES),
        ("application/octet-stream", "People.XLSX", Format.XLSX),
        ("", "people.jsonl", Format.JSON_LINES),
        ("application/octet-stream", "people.pdf", None),
    ],
)
def test_the_format_is_told_by_type_then_by_name(content_type: str, filename: str, format: Format | None) -> None:
    """What is neither is not guessed."""
    assert importing.format_of(content_type, filename) is format


async def test_streaming_gives_the_same_rows() -> None:
    """Reading in a thread changes neither rows nor order."""
    text = "email\n" + "".join(f"p{n}@example.com\n" for n in range(450))
    streamed = [item async for item in importing.streamed(importing.rows(io.BytesIO(text.encode()), Format.CSV))]
    assert streamed == read(text, limit=1000)
