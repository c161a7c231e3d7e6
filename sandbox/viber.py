"""The REST Bot API of Viber: what bots call, and the callbacks they get (PLATFORMS D1 to D5)."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web

from sandbox import draws
from sandbox.callbacks import Answer, Errand, readable
from sandbox.directory import Account, Contact, Standing
from sandbox.faults import Fault, FaultKind
from sandbox.front import Head, Ready
from sandbox.limits import Window, Windows
from sandbox.messages import Button, Message
from sandbox.settings import Channel, ViberBot
from sandbox.viber_messages import API_VERSION, STATUSES, ViberError, check_message, read_message
from sandbox.world import Json, NotPossible, Platform, Replies, World, mark_read, plain

MAX_BROADCAST, MAX_ONLINE = 300, 100
MAX_REQUEST = 30 * 1024
RETRIES = (10.0, 60.0, 300.0, 600.0, 900.0, 900.0, 900.0, 900.0, 900.0)
"""Sandbox seconds before each further try of a callback (PLATFORMS D2)."""
ALWAYS = {"message", "subscribed", "unsubscribed", "webhook"}
FILTERED = {"conversation_started", "delivered", "seen", "failed"}

ONLINE = {0: "online", 1: "offline", 2: "undisclosed", 3: "tryLater", 4: "unavailable"}
ONLINE_WORDS = {"offline": 1, "undisclosed": 2, "trylater": 3, "unavailable": 4}

Serve = Callable[["Subscriptions", Json], Json]


@dataclass(slots=True, eq=False)
class Subscriptions:
    """Viber's side of one bot."""

    account: Account
    bot: ViberBot
    broadcasts: Window
    url: str = ""
    events: frozenset[str] = frozenset(FILTERED)
    token: int = 5_000_000_000_000_000_000
    unanswered: Windows = field(default_factory=lambda: Windows(((100, 3600.0),)))
    details: Windows = field(default_factory=lambda: Windows(((2, 12 * 3600.0),)))
    tracking: dict[str, str] = field(default_factory=dict)
    """The tracking data that goes back with a person's next reply, by user id."""

    def next_token(self) -> int:
        """Message tokens are integers of 19 digits."""
        self.token += 1
        return self.token


class Viber(Platform):
    """The REST API and the people in front of it."""

    channel = Channel.VIBER

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._bots: dict[str, Subscriptions] = {}
        for account in world.directory.on(Channel.VIBER):
            self.open(account)
        self._methods: dict[str, Serve] = {
            "send_message": self._send_message,
            "broadcast_message": self._broadcast,
            "get_account_info": self._account_info,
            "get_user_details": self._user_details,
            "get_online": self._get_online,
        }

    def open(self, account: Account) -> None:
        """Serve a bot."""
        bot = account.bot
        assert isinstance(bot, ViberBot)  # noqa: S101 - the directory keeps channels apart
        limits = self.world.settings.limits
        self._bots[bot.token] = Subscriptions(
            account=account,
            bot=bot,
            broadcasts=Window(limits.viber_broadcasts_per_10_seconds, 10.0),
            unanswered=Windows(((limits.viber_unanswered_per_hour, 3600.0),)),
        )

    def reset(self) -> None:
        for bot in self._bots.values():
            bot.broadcasts.clear()
            bot.unanswered.clear()
            bot.details.clear()
            bot.tracking.clear()

    # What bots call

    def routes(self) -> list[web.RouteDef]:
        path = "/viber/pa/{method}"
        return [web.post(path, self._handle), web.get(path, self._handle)]

    def at_once(self, head: Head, body: bytes) -> Ready | None:
        method = head.path[-1]
        if self.world.faults.rules or head.path != ("viber", "pa", method) or method not in self._methods:
            return None
        try:
            bot, understood = self._understood(head.headers.get("x-viber-auth-token"), body)
        except ViberError as error:
            ready = _status(error.status, error.message)
        else:
            ready = self._call(bot, method, understood)
        self.world.stats.requests[self.channel, method, ready.status] += 1
        return ready

    async def _handle(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        raw = await request.read()
        response = await self._answer(request, method, raw)
        self.world.stats.requests[self.channel, method, response.status] += 1
        return response

    async def _answer(self, request: web.Request, method: str, raw: bytes) -> web.Response:
        try:
            bot, body = self._understood(request.headers.get("X-Viber-Auth-Token"), raw)
        except ViberError as error:
            return _status(error.status, error.message).response()
        faults = self.world.faults
        if faults.rules:
            contact = bot.account.by_user.get(str(body.get("receiver")))
            person = contact.person.id if contact else None
            fault = faults.strike(self.channel, method, bot.account.name, person)
            if fault is not None:
                return await self.faulty(fault, request, lambda: self._right(bot, method, body))
        return await self._right(bot, method, body)

    async def _right(self, bot: Subscriptions, method: str, body: Json) -> web.Response:
        if method == "set_webhook":
            return (await self._set_webhook(bot, body)).response()
        if method not in self._methods:
            return web.Response(status=404)
        return self._call(bot, method, body).response()

    def _understood(self, token: str | None, raw: bytes) -> tuple[Subscriptions, Json]:
        if len(raw) > MAX_REQUEST:
            raise ViberError(3, "Request is too large")
        try:
            body = orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError as error:
            raise ViberError(3) from error
        if not isinstance(body, dict):
            raise ViberError(3)
        bot = self._bots.get(str(token or body.get("auth_token")))
        if bot is None:
            raise ViberError(2)
        return bot, body

    def _call(self, bot: Subscriptions, method: str, body: Json) -> Ready:
        try:
            answer = self._methods[method](bot, body)
        except ViberError as error:
            return _status(error.status, error.message)
        except (AttributeError, TypeError, ValueError):
            return _status(3, STATUSES[3])
        return _json({"status": 0, "status_message": "ok", **answer})

    def wrong(self, fault: Fault) -> web.Response:
        match fault.kind:
            case FaultKind.THROTTLE:
                return _status(12, STATUSES[12]).response()
            case FaultKind.REFUSE:
                return _status(6, STATUSES[6]).response()
            case FaultKind.PLATFORM_ERROR:
                code = _code(fault)
                return _status(code, STATUSES.get(code, "generalError")).response()
            case _:
                return plain(fault.status or 500, fault.body or "Service unavailable")

    async def _set_webhook(self, bot: Subscriptions, body: Json) -> Ready:
        url = str(body.get("url") if body.get("url") is not None else "")
        events = body.get("event_types")
        if url and not url.startswith(("https://", "http://")):
            return _status(1, STATUSES[1])
        if url:
            token = bot.next_token()
            event = {"event": "webhook", "timestamp": self._timestamp(), "message_token": token}
            answer = await self._post_to(bot, "", event, url)
            if answer.status != 200:
                return _status(1, STATUSES[1])
        bot.url = url
        bot.events = frozenset(FILTERED if events is None else events)
        return _json(
            {"status": 0, "status_message": "ok", "event_types": sorted(bot.events | ALWAYS - {"webhook"})}
        )

    def _send_message(self, bot: Subscriptions, body: Json) -> Json:
        if not bot.url:
            raise ViberError(10)
        receiver = body.get("receiver")
        if not receiver:
            raise ViberError(4)
        check_message(body)
        contact = _subscriber(bot, str(receiver))
        self._pace(bot, contact)
        token = bot.next_token()
        self._receive(bot, contact, token, body)
        return {"message_token": token, "chat_hostname": "SN-CHAT-SANDBOX_", "billing_status": 1}

    def _broadcast(self, bot: Subscriptions, body: Json) -> Json:
        if not bot.url:
            raise ViberError(10)
        receivers = body.get("broadcast_list")
        if not isinstance(receivers, list) or not receivers:
            raise ViberError(4)
        if len(receivers) > MAX_BROADCAST:
            raise ViberError(3, "broadcast_list is too long")
        check_message(body)
        self._pace_broadcast(bot)
        token = bot.next_token()
        failed = []
        message = orjson.dumps({key: value for key, value in body.items() if key != "broadcast_list"})
        for receiver in receivers:
            try:
                contact = _subscriber(bot, str(receiver))
                self._pace(bot, contact)
            except ViberError as error:
                failed.append({"receiver": receiver, "status": error.status, "status_message": error.message})
            else:
                self._receive(bot, contact, token, _filled(message, contact))
        return {"message_token": token, "failed_list": failed}

    def _pace_broadcast(self, bot: Subscriptions) -> None:
        now = self.world.clock.seconds()
        wait = bot.broadcasts.wait(now)
        if wait > 0 and self.world.breach(self.channel, bot.account.name, "broadcasts_per_10_seconds"):
            raise ViberError(12)
        bot.broadcasts.note(now)

    def _pace(self, bot: Subscriptions, contact: Contact) -> None:
        """100 messages an hour to one person who does not reply (PLATFORMS D1)."""
        now = self.world.clock.seconds()
        wait = bot.unanswered.wait(contact.user_id, now)
        if wait > 0 and self.world.breach(self.channel, bot.account.name, "unanswered_per_hour"):
            raise ViberError(12)
        bot.unanswered.note(contact.user_id, now)

    def _receive(self, bot: Subscriptions, contact: Contact, token: int, body: Json) -> None:
        if body.get("tracking_data"):
            bot.tracking[contact.user_id] = str(body["tracking_data"])
        self.world.receive(contact, str(token), body, read_message, self.world.clock.seconds())

    def _account_info(self, bot: Subscriptions, _body: Json) -> Json:
        count = sum(1 for one in bot.account.by_person.values() if one.standing is Standing.ACTIVE)
        return {
            "id": f"pa:{int.from_bytes(draws.token(bot.bot.token), 'big')}",
            "name": bot.bot.title,
            "uri": bot.bot.uri,
            "icon": "",
            "background": "",
            "category": "Business",
            "subcategory": "Services",
            "country": "GB",
            "webhook": bot.url,
            "event_types": sorted(bot.events | ALWAYS - {"webhook"}),
            "subscribers_count": count,
            "members": [],
        }

    def _user_details(self, bot: Subscriptions, body: Json) -> Json:
        user_id = str(body.get("id") or "")
        if not user_id:
            raise ViberError(4)
        contact = _subscriber(bot, user_id)
        now = self.world.clock.seconds()
        if bot.details.wait(user_id, now) > 0 and self.world.breach(
            self.channel, bot.account.name, "details_per_12_hours"
        ):
            raise ViberError(12)
        bot.details.note(user_id, now)
        device = {"primary_device_os": "Android 14", "viber_version": "25.1.0", "device_type": "Sandbox"}
        return {"message_token": bot.next_token(), "user": {**_user(contact), **device, "mcc": 234, "mnc": 10}}

    def _get_online(self, bot: Subscriptions, body: Json) -> Json:
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            raise ViberError(4)
        if len(ids) > MAX_ONLINE:
            raise ViberError(3, f"At most {MAX_ONLINE} ids are allowed")
        return {"users": [self._online(bot, str(user_id)) for user_id in ids]}

    def _online(self, bot: Subscriptions, user_id: str) -> Json:
        contact = bot.account.by_user.get(user_id)
        status = 4 if contact is None or contact.standing is not Standing.ACTIVE else self._online_status(contact)
        now = int(self.world.clock.seconds() * 1000)
        seen = {0: now, 1: now - 1_800_000}.get(status, 0)
        return {
            "id": user_id,
            "online_status": status,
            "online_status_message": ONLINE[status],
            "last_online": seen,
        }

    def _online_status(self, contact: Contact) -> int:
        person, world = contact.person, self.world
        pinned = world.pins.get(person.id)
        if pinned is None and draws.fraction(world.settings.seed, person.id, "hides") < world.behaviour.undisclosed:
            return 2
        return ONLINE_WORDS.get(world.presence_of(person).availability.lower(), 0)

    # Callbacks

    def _event(self, contact: Contact, event: str, part: Json) -> Replies:
        bot = self._bot(contact)
        if event in FILTERED and event not in bot.events:
            return []
        body = {"event": event, "timestamp": self._timestamp(), "chat_hostname": "SN-CHAT-SANDBOX_", **part}
        return [self._post_to(bot, contact.person.id, body, None, contact)]

    def _post_to(
        self, bot: Subscriptions, person: str, body: Json, url: str | None, contact: Contact | None = None
    ) -> asyncio.Future[Answer]:
        """Call the bot: at `url`, once, or wherever its webhook is at the time, with retries."""
        raw = orjson.dumps(body)
        signature = hmac.new(bot.bot.token.encode(), raw, hashlib.sha256).hexdigest()
        tries_left = () if url is not None else RETRIES

        def welcome(answer: Answer) -> None:
            if contact is not None and body["event"] == "conversation_started":
                self._welcome(bot, contact, answer)

        errand = Errand(
            channel=self.channel,
            account=bot.account.name,
            person=person,
            event=body["event"],
            url=lambda: url or bot.url or None,
            body=raw,
            headers={"Content-Type": "application/json", "X-Viber-Content-Signature": signature},
            retry=lambda tries, _answer: tries_left[tries - 1] if tries <= len(tries_left) else None,
            on_answer=welcome,
        )
        return self.world.callbacks.post(errand)

    def _welcome(self, bot: Subscriptions, contact: Contact, answer: Answer) -> None:
        """A message in the answer to `conversation_started` is shown as the welcome (PLATFORMS D2)."""
        message = readable(answer.body)
        if not answer.ok or not isinstance(message, dict) or "type" not in message:
            return
        try:
            check_message(message)
        except ViberError:
            return
        self._receive(bot, contact, bot.next_token(), message)

    def _timestamp(self) -> int:
        return int(self.world.clock.seconds() * 1000)

    def _bot(self, contact: Contact) -> Subscriptions:
        bot = contact.account.bot
        assert isinstance(bot, ViberBot)  # noqa: S101 - the directory keeps channels apart
        return self._bots[bot.token]

    # What people do

    def start(self, contact: Contact, payload: str) -> Replies:
        """Open the conversation, behind a deep link with its context, then subscribe."""
        known = contact.standing is Standing.ACTIVE
        opened: Json = {
            "message_token": self._bot(contact).next_token(),
            "type": "open",
            "user": _user(contact),
            "subscribed": known,
        }
        if payload:
            opened["context"] = payload
        replies = self._event(contact, "conversation_started", opened)
        return replies if known else [*replies, *self.unblock(contact)]

    def say(self, contact: Contact, text: str) -> Replies:
        """Writing subscribes, without a `subscribed` event (PLATFORMS D2)."""
        return self._say(contact, text)

    def _say(self, contact: Contact, text: str, *, silent: bool = False) -> Replies:
        if contact.standing is Standing.BLOCKED:
            raise NotPossible(f"{contact.person.id} has blocked the bot")
        contact.standing = Standing.ACTIVE
        bot = self._bot(contact)
        bot.unanswered.forget(contact.user_id)
        message: Json = {"type": "text", "text": text}
        tracking = bot.tracking.pop(contact.user_id, None)
        if tracking is not None:
            message["tracking_data"] = tracking
        part = {"message_token": bot.next_token(), "sender": _user(contact), "message": message, "silent": silent}
        return self._event(contact, "message", part)

    def press(self, message: Message, button: Button) -> Replies:
        """A reply button's ActionBody arrives as if it had been written."""
        self._require_active(message.contact)
        return self._say(message.contact, str(button.value), silent=bool(button.source.get("Silent")))

    def leave(self, contact: Contact) -> Replies:
        self._require_active(contact)
        contact.standing = Standing.LEFT
        part = {"user_id": contact.user_id, "message_token": self._bot(contact).next_token()}
        return self._event(contact, "unsubscribed", part)

    def block(self, contact: Contact) -> Replies:
        """Who blocks a bot is unsubscribed from it."""
        replies = self.leave(contact)
        contact.standing = Standing.BLOCKED
        return replies

    def unblock(self, contact: Contact) -> Replies:
        """Subscribe, again or for the first time."""
        contact.standing = Standing.ACTIVE
        part = {"user": _user(contact), "message_token": self._bot(contact).next_token()}
        return self._event(contact, "subscribed", part)

    def deliver(self, message: Message) -> Replies:
        super().deliver(message)
        return self._receipt("delivered", message)

    def read(self, contact: Contact, message: Message | None) -> Replies:
        """One `seen` for the newest of what was unread, however many (PLATFORMS D2)."""
        undelivered = [one for one in contact.messages if one.delivered_at is None and one.state != "deleted"]
        newest = mark_read(contact, message, self.world.clock.seconds())
        if newest is None:
            return []
        told = [self._receipt("delivered", one) for one in undelivered if one.read_at is not None]
        return [*(reply for replies in told for reply in replies), *self._receipt("seen", newest)]

    def fail(self, message: Message, reason: str) -> Replies:
        contact = message.contact
        part = {"message_token": int(message.message_id), "user_id": contact.user_id, "desc": reason or "failure"}
        return self._event(contact, "failed", part)

    def _receipt(self, event: str, message: Message) -> Replies:
        contact = message.contact
        part = {"message_token": int(message.message_id), "user_id": contact.user_id}
        return self._event(contact, event, part)

    def react(self, message: Message, reaction: str) -> Replies:  # noqa: ARG002 - bots are not told
        return []

    def raw(self, contact: Contact, body: Json) -> Replies:
        return self._event(contact, str(body.get("event")), body)

    def _require_active(self, contact: Contact) -> None:
        if contact.standing is not Standing.ACTIVE:
            raise NotPossible(f"{contact.person.id} is not subscribed")


def _subscriber(bot: Subscriptions, user_id: str) -> Contact:
    contact = bot.account.by_user.get(user_id)
    if contact is None:
        raise ViberError(5)
    if contact.standing is not Standing.ACTIVE:
        raise ViberError(6)
    return contact


def _filled(message: bytes, contact: Contact) -> Json:
    """The message with the placeholders of a broadcast filled in for one person (PLATFORMS D1)."""
    text = message.decode()
    encoded = quote(contact.user_id, safe="")
    for name, value in (
        ("replace_me_with_url_encoded_receiver_id", encoded),
        ("replace_me_with_receiver_id", contact.user_id),
        ("replace_me_with_user_name", contact.person.name),
    ):
        text = text.replace(name, orjson.dumps(value).decode()[1:-1])
    return dict(orjson.loads(text))


def _user(contact: Contact) -> Json:
    person = contact.person
    return {
        "id": contact.user_id,
        "name": person.name,
        "avatar": "",
        "language": person.locale.partition("-")[0],
        "country": person.country,
        "api_version": API_VERSION,
    }


def _code(fault: Fault) -> int:
    if fault.code is not None and not fault.code.isdigit():
        return next((code for code, name in STATUSES.items() if name.lower() == fault.code.lower()), 99)
    return int(fault.code or fault.status or 99)


def _status(status: int, message: str) -> Ready:
    return _json({"status": status, "status_message": message})


def _json(body: Any) -> Ready:
    return Ready(orjson.dumps(body))
