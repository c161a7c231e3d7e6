"""What a callback of Viber says, and that nothing unproven is looked at."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from viberbot import Api, BotConfiguration

from bot.channels.viber import ViberAccount
from bot.channels.viber.callbacks import receive
from bot.channels.webhook import BODY_LIMIT, Received
from broadcast.model import ChannelName, EventType, Receipt
from broadcast.ports import Inbound, Person, Said
from broadcast.tracking import Press, payload
from tests.channels.clocks import NOW

FIXTURES = Path(__file__).parents[1] / "fixtures" / "viber"
ACCOUNT = ViberAccount("viber/news", "4a-SECRET", "News")
ANN = "01234567890A="
AT = datetime.fromtimestamp(1457764197.627, UTC)


def callback(name: str, **changes: Any) -> bytes:
    return orjson.dumps({**orjson.loads((FIXTURES / f"{name}.json").read_bytes()), **changes})


def signature(body: bytes) -> str:
    return hmac.new(ACCOUNT.token.encode(), body, hashlib.sha256).hexdigest()


def told(body: bytes, headers: Mapping[str, str] | None = None) -> Received:
    return receive(ACCOUNT, headers or {"X-Viber-Content-Signature": signature(body)}, body, NOW)


def only(body: bytes) -> Inbound:
    received = told(body)
    assert (received.status, received.receipts, received.refused) == (200, (), None)
    [inbound] = received.inbound
    return inbound


@pytest.mark.parametrize("given", [None, "", "0" * 64, "not hex", signature(b"another body"), "é"])
def test_without_the_signature_nothing_is_read(given: str | None) -> None:
    """A missing, wrong or foreign signature is refused."""
    received = told(
        callback("message_text"), {"Other": "x"} if given is None else {"X-Viber-Content-Signature": given}
    )
    assert received == Received(status=403, refused="bad_signature")


@pytest.mark.parametrize("name", ["X-Viber-Content-Signature", "x-viber-content-signature"])
@pytest.mark.parametrize("fold", [str.lower, str.upper])
def test_the_signature_is_of_the_raw_body(name: str, fold: Any) -> None:
    """Byte for byte as it came, in whatever case header and digits are."""
    body = (FIXTURES / "message_unicode_raw.json").read_bytes()
    assert told(body, {name: fold(signature(body))}).refused is None


def test_the_signature_is_that_of_the_library() -> None:
    """viberbot computes the same one."""
    body = callback("seen")
    assert Api(BotConfiguration(ACCOUNT.token, "News", "")).verify_signature(body, signature(body))


def test_a_callback_beyond_all_measure_is_refused() -> None:
    """What is longer than the limit is not even hashed."""
    assert told(b"x" * (BODY_LIMIT + 1)) == Received(status=413, refused="too_large")


def test_a_written_text_is_told_with_its_writer() -> None:
    """All that the port has a word for is filled in."""
    assert only(callback("message_text")) == Inbound(
        key="message:912661846655238145",
        account="viber/news",
        channel=ChannelName.VIBER,
        person=Person(ANN, "viberUser"),
        said=Said.TEXT,
        at=AT,
        text="HI!",
    )


def test_texts_of_any_script_and_tokens_of_64_bits_arrive_whole() -> None:
    """Neither letters nor digits are lost."""
    inbound = only((FIXTURES / "message_unicode_raw.json").read_bytes())
    assert inbound.key == "message:4912661846655238145"
    assert inbound.text.startswith("批封廟根縄")
    assert (inbound.person.first_name or "").startswith("ふで都急")


def test_a_pressed_button_is_known_by_its_payload() -> None:
    """ActionBody comes back as the text of a message; no other text passes for one."""
    carried = payload(Press("dlv_1", "later"))
    inbound = only(callback("message_text", message={"type": "text", "text": carried}))
    assert (inbound.said, inbound.text) == (Said.PRESSED, carried)


def test_the_echo_of_a_pressed_link_is_no_text() -> None:
    """A silent message that is an address was not written by the person."""
    inbound = only(callback("message_text", message={"type": "text", "text": "https://x.example/r/1"}))
    assert inbound.said is Said.SEEN


def test_a_message_without_words_only_shows_somebody() -> None:
    """A sticker says nothing but that the person is there."""
    inbound = only(callback("message_text", message={"type": "sticker", "sticker_id": 40105}))
    assert (inbound.said, inbound.text) == (Said.SEEN, "")


def test_a_subscription_tells_country_and_language() -> None:
    """It opens the conversation."""
    inbound = only(callback("subscribed"))
    assert (inbound.said, inbound.at) == (Said.SUBSCRIBED, AT)
    assert inbound.person == Person(ANN, "viberUser", locale="en", country="IL")


def test_one_name_is_taken_apart() -> None:
    """Viber knows one name; placeholders want a first one."""
    person = only(callback("subscribed", user={"id": ANN, "name": "Ann van der Ash"})).person
    assert (person.first_name, person.last_name) == ("Ann", "van der Ash")


def test_an_unsubscription_is_told() -> None:
    """It names the person only."""
    inbound = only(callback("unsubscribed"))
    assert (inbound.said, inbound.person) == (Said.UNSUBSCRIBED, Person(ANN))


@pytest.mark.parametrize("name", ["conversation_started", "conversation_started_minimal"])
def test_an_opened_chat_is_welcomed_and_no_subscription(name: str) -> None:
    """The welcome is the answer to the callback; the link's payload is kept."""
    received = told(callback(name))
    [inbound] = received.inbound
    assert (inbound.said, inbound.start_payload) == (Said.SEEN, "context info")
    assert orjson.loads(received.body or b"")["text"] == ACCOUNT.welcome


@pytest.mark.parametrize(
    ("name", "type", "up_to", "detail"),
    [
        ("delivered", EventType.DELIVERED, False, None),
        ("seen", EventType.READ, True, None),
        ("failed", EventType.FAILED, False, "failure desc"),
    ],
)
def test_receipts_name_their_message(name: str, type: EventType, up_to: bool, detail: str | None) -> None:
    """`seen` covers what came before; a failure says why."""
    expected = Receipt("viber/news", ANN, type, "912661846655238145", AT, up_to, detail)
    assert told(callback(name)) == Received(receipts=(expected,))


def test_a_failure_without_words_is_a_failure() -> None:
    """viberbot cannot do without `desc`; we can."""
    body = orjson.loads(callback("failed"))
    del body["desc"]
    [receipt] = told(orjson.dumps(body)).receipts
    assert (receipt.type, receipt.detail) == (EventType.FAILED, None)


@pytest.mark.parametrize(
    "body",
    [
        callback("webhook"),
        callback("message_chat_extension"),
        orjson.dumps({"event": "client_status", "timestamp": 1, "user": {"id": ANN}}),
        orjson.dumps({"event": "from_the_future"}),
        orjson.dumps({"event": ["message"]}),
        callback("message_text", message={"type": "hologram"}),
        callback("message_text", message=None),
        callback("message_text", sender={"name": "nobody"}),
        callback("subscribed", user=None),
        callback("unsubscribed", user_id=None),
        orjson.dumps({"event": "seen"}),
        orjson.dumps({"event": "delivered", "timestamp": 1}),
        b"[]",
        b"{",
        b"",
    ],
)
def test_what_is_not_understood_says_nothing(body: bytes) -> None:
    """It is answered 200, or Viber repeats it for an hour."""
    assert told(body) == Received()


@pytest.mark.parametrize("timestamp", [4977069964384421269, -(10**18), "soon", None])
def test_a_time_that_is_none_is_ours(timestamp: object) -> None:
    """The callback still counts."""
    assert only(callback("message_text", timestamp=timestamp)).at == NOW


@pytest.mark.parametrize("name", ["message_text", "subscribed", "unsubscribed", "conversation_started"])
def test_a_repeat_has_the_same_key(name: str) -> None:
    """Viber repeats a callback byte for byte."""
    assert told(callback(name)).inbound[0].key == told(callback(name)).inbound[0].key


@pytest.mark.parametrize("change", [{"token": ""}, {"sender": ""}, {"sender": "x" * 29}, {"rate": -1.0}])
def test_an_account_that_cannot_work_is_not_made(change: dict[str, Any]) -> None:
    """Nonsense is refused where it is configured."""
    with pytest.raises(ValueError, match="viber/news"):
        ViberAccount(**{"key": "viber/news", "token": "t", "sender": "News", **change})


def test_an_account_does_not_show_its_token() -> None:
    """Whoever prints or logs an account gives nothing away."""
    assert "SECRET" not in repr(ACCOUNT)
