"""The Bot API: what Telegram bots call, and the updates they get (PLATFORMS C1 to C5)."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from sandbox import draws
from sandbox.callbacks import Answer, Errand, readable
from sandbox.directory import Account, Contact, Standing
from sandbox.faults import Fault, FaultKind
from sandbox.front import Head, Ready
from sandbox.limits import Trickle, Window, whole_seconds
from sandbox.messages import Button, Message, packed
from sandbox.settings import Channel, TelegramBot
from sandbox.telegram_errors import ROWS, TelegramError, failed, throttled, too_many
from sandbox.telegram_params import params_of, read_params
from sandbox.telegram_text import (
    TextError,
    keyboard_problem,
    parse,
    read_message,
    units,
)
from sandbox.world import Json, NotPossible, Platform, Replies, World, mark_read, plain

MAX_TEXT = 4096
MAX_CAPTION = 1024
DELETABLE_SECONDS = 48 * 3600
UPDATE_LIFETIME = 24 * 3600
"""Sandbox seconds that an update waits for the bot."""
LATEST_RETRY = 60.0
"""Sandbox seconds between two tries of the webhook at most."""
QUERY_LIFETIME = 15 * 60
"""Sandbox seconds in which a callback query can be answered."""
MEDIA_METHODS = {
    "sendphoto": "photo",
    "senddocument": "document",
    "sendvideo": "video",
    "sendanimation": "animation",
}
UNASKED = {"message_reaction"}
"""Updates that only come when `allowed_updates` names them."""


@dataclass(slots=True)
class Pending:
    """An update the bot has not taken yet."""

    contact: Contact
    kind: str
    body: bytes
    born: float
    first: asyncio.Future[Answer]
    under_way: bool = False
    """Handed to the callbacks: not to be handed over again."""


@dataclass(slots=True, eq=False)
class Session:
    """The server's side of one bot."""

    account: Account
    bot: TelegramBot
    id: int
    window: Window
    trickle: Trickle
    url: str = ""
    secret: str = ""
    max_connections: int = 40
    allowed: tuple[str, ...] | None = None
    last_error: str | None = None
    last_error_at: float = 0.0
    pending: dict[int, Pending] = field(default_factory=dict)
    queries: dict[str, float] = field(default_factory=dict)
    """Callback queries not answered yet, with the sandbox instant each was asked."""
    answers: list[Json] = field(default_factory=list)
    commands: list[Json] = field(default_factory=list)
    message_id: int = 0
    update_id: int = 700_000_000
    poller: asyncio.Event | None = None
    chats: dict[str, orjson.Fragment] = field(default_factory=dict)
    me: orjson.Fragment = field(default_factory=lambda: orjson.Fragment(b"{}"))

    def next_message_id(self) -> int:
        """Message ids count over all private chats of a bot."""
        self.message_id += 1
        return self.message_id

    def wants(self, kind: str) -> bool:
        """Whether the bot asked for updates of a kind."""
        return kind in self.allowed if self.allowed else kind not in UNASKED


class Telegram(Platform):
    """The Bot API server and the people in front of it."""

    channel = Channel.TELEGRAM

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._sessions: dict[str, Session] = {}
        for account in world.directory.on(Channel.TELEGRAM):
            self.open(account)
        self._methods: dict[str, Callable[[Session, Json], Any]] = {
            "getme": self._get_me,
            "setwebhook": self._set_webhook,
            "deletewebhook": self._delete_webhook,
            "getwebhookinfo": self._webhook_info,
            "sendmessage": self._send_message,
            "sendmediagroup": self._send_media_group,
            "editmessagetext": self._edit_text,
            "editmessagecaption": self._edit_caption,
            "editmessagereplymarkup": self._edit_markup,
            "deletemessage": self._delete_message,
            "deletemessages": self._delete_messages,
            "answercallbackquery": self._answer_query,
            "setmycommands": self._set_commands,
            "getmycommands": lambda session, _params: session.commands,
            "deletemycommands": self._set_commands,
            "getchat": self._get_chat,
            "getchatmember": self._get_chat_member,
            "sendchataction": self._chat_action,
            "setmessagereaction": self._chat_action,
            "setchatmenubutton": lambda _session, _params: True,
            "setmydescription": lambda _session, _params: True,
            "setmyshortdescription": lambda _session, _params: True,
            "setmyname": lambda _session, _params: True,
            "getmyname": lambda session, _params: {"name": session.bot.username},
            "logout": lambda _session, _params: True,
            "close": lambda _session, _params: True,
            **{method: self._media_sender(part) for method, part in MEDIA_METHODS.items()},
        }

    def open(self, account: Account) -> None:
        """Serve a bot."""
        bot = account.bot
        assert isinstance(bot, TelegramBot)  # noqa: S101 - the directory keeps channels apart
        limits = self.world.settings.limits
        session = Session(
            account=account,
            bot=bot,
            id=int(bot.token.partition(":")[0]),
            window=Window(int(limits.telegram_per_second * (1 + limits.tolerance)), 1.0),
            trickle=Trickle(1.0, limits.telegram_chat_burst),
        )
        session.me = orjson.Fragment(orjson.dumps(_user_of_bot(session)))
        self._sessions[bot.token] = session

    def reset(self) -> None:
        for session in self._sessions.values():
            session.window.clear()
            session.trickle.clear()
            session.pending.clear()
            session.queries.clear()
            session.answers.clear()

    def answers(self, account: str) -> list[Json]:
        """What the bot answered to callback queries, oldest first."""
        return [
            one for session in self._sessions.values() if session.account.name == account for one in session.answers
        ]

    # What bots call

    def routes(self) -> list[web.RouteDef]:
        path = "/telegram/bot{token}/{method}"
        return [web.post(path, self._handle), web.get(path, self._handle)]

    def at_once(self, head: Head, body: bytes) -> Ready | None:
        if self.world.faults.rules or len(head.path) != 3 or not head.path[1].startswith("bot"):
            return None
        _, token, spelled = head.path
        method, session = spelled.lower(), self._sessions.get(token.removeprefix("bot"))
        try:
            params = params_of(head.headers.get("content-type", ""), body)
        except ValueError:
            ready = failed(400, "Bad Request: can't parse request")
        else:
            if session is None or method == "getupdates" or params is None:
                return None
            ready = self._call(session, method, params)
        self.world.stats.requests["telegram", spelled, ready.status] += 1
        return ready

    async def _handle(self, request: web.Request) -> web.Response:
        match = request.match_info
        method = match["method"].lower()
        session = self._sessions.get(match["token"])
        params: Json = {}
        try:
            params = await read_params(request)
        except ValueError:
            response = failed(400, "Bad Request: can't parse request").response()
        else:
            response = await self._answer(request, session, method, params)
        self.world.stats.requests["telegram", match["method"], response.status] += 1
        return response

    async def _answer(
        self, request: web.Request, session: Session | None, method: str, params: Json
    ) -> web.Response:
        if session is None:
            return failed(401, "Unauthorized").response()
        faults = self.world.faults
        if faults.rules:
            contact = session.account.by_user.get(str(params.get("chat_id")))
            person = contact.person.id if contact else None
            fault = faults.strike("telegram", request.match_info["method"], session.account.name, person)
            if fault is not None:
                return await self.faulty(fault, request, lambda: self._right(session, method, params))
        return await self._right(session, method, params)

    async def _right(self, session: Session, method: str, params: Json) -> web.Response:
        if method == "getupdates":
            return (await self._get_updates(session, params)).response()
        return self._call(session, method, params).response()

    def _call(self, session: Session, method: str, params: Json) -> Ready:
        serve = self._methods.get(method)
        if serve is None:
            return failed(404, "Not Found")
        try:
            result = serve(session, params)
        except TelegramError as error:
            return failed(error.status, error.description, error.parameters)
        except TextError as error:
            return failed(400, str(error))
        except (AttributeError, TypeError, ValueError):
            return failed(400, "Bad Request: can't parse a parameter")
        return Ready(orjson.dumps({"ok": True, "result": result}))

    def wrong(self, fault: Fault) -> web.Response:
        match fault.kind:
            case FaultKind.THROTTLE:
                return throttled(fault.retry_after).response()
            case FaultKind.REFUSE:
                return failed(*ROWS["blocked"]).response()
            case FaultKind.PLATFORM_ERROR:
                status, description = ROWS.get(fault.code or "", (fault.status or 400, fault.code or "Bad Request"))
                parameters = {"migrate_to_chat_id": -1001234567890} if fault.code == "upgraded" else None
                return failed(fault.status or status, description, parameters).response()
            case _:
                status = fault.status or 500
                if fault.body is not None or status in {502, 503, 504}:
                    return plain(status, fault.body or "<html><body>Bad Gateway</body></html>")
                description = "Internal Server Error" if status >= 500 else "Bad Request"
                return failed(status, description).response()

    # Sending

    def _send_message(self, session: Session, params: Json) -> Json:
        contact = self._reachable(session, params)
        text = params.get("text")
        if not isinstance(text, str) or not text:
            raise TelegramError(400, "Bad Request: message text is empty")
        shown, entities = parse(text, params.get("parse_mode"))
        if not shown.strip():
            raise TelegramError(400, "Bad Request: message text is empty")
        if len(shown) > MAX_TEXT // 2 and units(shown) > MAX_TEXT:
            raise TelegramError(400, "Bad Request: message is too long")
        part: Json = {"text": shown}
        if entities:
            part["entities"] = entities
        return self._accept(session, contact, params, part)

    def _media_sender(self, part: str) -> Callable[[Session, Json], Json]:
        def send(session: Session, params: Json) -> Json:
            contact = self._reachable(session, params)
            shown = self._media_part(part, params.get(part))
            shown.update(_caption(params))
            return self._accept(session, contact, params, shown)

        return send

    def _media_part(self, part: str, source: Any) -> Json:
        """What the answer says of a medium; its file id can be sent again (PLATFORMS C4)."""
        if not source:
            raise TelegramError(400, f"Bad Request: there is no {part} in the request")
        if isinstance(source, str) and "://" in source and not re.match(r"(https?|attach)://[^/\s]", source):
            raise TelegramError(*ROWS["wrong_url"])
        if isinstance(source, str) and "://" not in source and not source.startswith("SANDBOX"):
            raise TelegramError(400, "Bad Request: wrong file identifier/HTTP URL specified")
        known = isinstance(source, str) and source.startswith("SANDBOX")
        mark = draws.token(part, source, size=12).hex()
        file_id = source if known else f"SANDBOX{part}{mark}"
        one: Json = {"file_id": file_id, "file_unique_id": mark[:16], "file_size": 1000}
        match part:
            case "photo":
                return {"photo": [{**one, "width": 320, "height": 240}]}
            case "video" | "animation":
                return {part: {**one, "width": 320, "height": 240, "duration": 1}}
            case _:
                return {part: {**one, "file_name": "file"}}

    def _send_media_group(self, session: Session, params: Json) -> list[Json]:
        items = params.get("media")
        if not isinstance(items, list) or not 2 <= len(items) <= 10:
            raise TelegramError(400, "Bad Request: wrong number of media in the group; expected 2 to 10")
        contact = self._reachable(session, params)
        group = str(session.update_id) + str(session.message_id)
        sent = []
        for item in items:
            shown = self._media_part(str(item.get("type")), item.get("media"))
            shown.update(_caption(item))
            own = {**params, "media": [item], "caption": item.get("caption"), "parse_mode": item.get("parse_mode")}
            sent.append(self._accept(session, contact, own, {**shown, "media_group_id": group}))
        return sent

    def _accept(self, session: Session, contact: Contact, params: Json, part: Json) -> Json:
        """Check keyboard and limits, put the message on record, and answer it."""
        markup = params.get("reply_markup")
        if markup is not None:
            _check_keyboard(markup)
        world = self.world
        now = world.clock.seconds()
        self._pace(session, contact, now, paid=bool(params.get("allow_paid_broadcast")))
        message_id = session.next_message_id()
        world.receive(contact, str(message_id), params, read_message, now)
        result = {
            "message_id": message_id,
            "from": session.me,
            "chat": _chat(session, contact),
            "date": int(now),
            **part,
        }
        if markup:
            result["reply_markup"] = markup
        return result

    def _pace(self, session: Session, contact: Contact, now: float, *, paid: bool) -> None:
        """About 30 messages a second for a bot unless it pays, about one a second for a chat (PLATFORMS C1)."""
        wait = 0.0 if paid else session.window.wait(now)
        if wait > 0 and self.world.breach("telegram", session.account.name, "bot_per_second"):
            raise too_many(whole_seconds(wait))
        wait = session.trickle.wait(contact.chat, now)
        if wait > 0 and self.world.breach("telegram", session.account.name, "chat_per_second"):
            raise too_many(whole_seconds(wait))
        session.window.note(now)
        session.trickle.note(contact.chat, now)

    def _reachable(self, session: Session, params: Json) -> Contact:
        chat = params.get("chat_id")
        if chat is None or chat == "":
            raise TelegramError(400, "Bad Request: chat_id is empty")
        contact = session.account.by_user.get(str(chat))
        if contact is None or contact.standing is Standing.STRANGER:
            raise TelegramError(*ROWS["chat_not_found"])
        if contact.standing is not Standing.ACTIVE:
            raise TelegramError(*ROWS["blocked"])
        return contact

    # Changing what was sent

    def _edit_text(self, session: Session, params: Json) -> Json:
        shown, _entities = parse(str(params.get("text") or ""), params.get("parse_mode"))
        if not shown.strip():
            raise TelegramError(400, "Bad Request: message text is empty")
        if units(shown) > MAX_TEXT:
            raise TelegramError(400, "Bad Request: message is too long")
        return self._edit(session, params, {"text": shown}, ("text", "parse_mode", "reply_markup"))

    def _edit_caption(self, session: Session, params: Json) -> Json:
        return self._edit(session, params, _caption(params), ("caption", "parse_mode", "reply_markup"))

    def _edit_markup(self, session: Session, params: Json) -> Json:
        return self._edit(session, params, {}, ("reply_markup",))

    def _edit(self, session: Session, params: Json, part: Json, fields: tuple[str, ...]) -> Json:
        contact = self._reachable(session, params)
        message = contact.message(str(params.get("message_id")))
        if message is None:
            raise TelegramError(400, "Bad Request: message to edit not found")
        if params.get("reply_markup") is not None:
            _check_keyboard(params["reply_markup"])
        changed = {key: value for key, value in message.raw.items() if key not in fields}
        changed.update({key: params[key] for key in fields if params.get(key) is not None})
        if changed == message.raw:
            raise TelegramError(*ROWS["not_modified"])
        message.edit(changed)
        now = int(self.world.clock.seconds())
        result = {"message_id": int(message.message_id), "from": session.me, "chat": _chat(session, contact)}
        result.update({"date": int(message.at), "edit_date": now, **part})
        if "text" not in result and "text" in changed:
            result["text"] = message.content.text
        if changed.get("reply_markup"):
            result["reply_markup"] = changed["reply_markup"]
        return result

    def _delete_message(self, session: Session, params: Json) -> bool:
        contact = self._reachable(session, params)
        message = contact.message(str(params.get("message_id")))
        if message is None:
            raise TelegramError(400, "Bad Request: message to delete not found")
        if self.world.clock.seconds() - message.at > DELETABLE_SECONDS:
            raise TelegramError(*ROWS["cant_delete"])
        message.state = "deleted"
        return True

    def _delete_messages(self, session: Session, params: Json) -> bool:
        ids = params.get("message_ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= 100:
            raise TelegramError(400, "Bad Request: message identifiers are not specified or too many")
        contact = self._reachable(session, params)
        for message in [contact.message(str(one)) for one in ids]:
            if message is not None:
                message.state = "deleted"
        return True

    # The rest of the methods

    def _get_me(self, session: Session, _params: Json) -> Json:
        more = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
        return {**_user_of_bot(session), **more, "can_connect_to_business": False, "has_main_web_app": False}

    def _answer_query(self, session: Session, params: Json) -> bool:
        asked = session.queries.pop(str(params.get("callback_query_id")), None)
        if asked is None or self.world.clock.seconds() - asked > QUERY_LIFETIME:
            raise TelegramError(*ROWS["query_too_old"])
        if len(str(params.get("text") or "")) > 200:
            raise TelegramError(400, "Bad Request: MESSAGE_TOO_LONG")
        session.answers.append(dict(params))
        return True

    def _set_commands(self, session: Session, params: Json) -> bool:
        commands = params.get("commands") or []
        if len(commands) > 100:
            raise TelegramError(400, "Bad Request: too many commands specified")
        for one in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", str(one.get("command"))):
                raise TelegramError(400, "Bad Request: BOT_COMMAND_INVALID")
            if not 1 <= len(str(one.get("description") or "")) <= 256:
                raise TelegramError(400, "Bad Request: BOT_COMMAND_DESCRIPTION_INVALID")
        session.commands = commands
        return True

    def _get_chat(self, session: Session, params: Json) -> Json:
        contact = self._reachable(session, params)
        return {**_chat_json(contact), "accent_color_id": 0, "max_reaction_count": 11,
                "accepted_gift_types": {"unlimited_gifts": False, "limited_gifts": False, "unique_gifts": False,
                                        "premium_subscription": False, "gifts_from_channels": False}}  # fmt: skip

    def _get_chat_member(self, session: Session, params: Json) -> Json:
        return {"status": "member", "user": _user(self._reachable(session, params))}

    def _chat_action(self, session: Session, params: Json) -> bool:
        self._reachable(session, params)
        return True

    # Updates

    def _set_webhook(self, session: Session, params: Json) -> bool:
        url, secret = str(params.get("url") or ""), str(params.get("secret_token") or "")
        if url and not re.match(r"https?://[^/\s]+", url):
            raise TelegramError(400, "Bad Request: bad webhook: invalid webhook URL specified")
        if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise TelegramError(400, "Bad Request: secret token contains unallowed characters")
        if params.get("drop_pending_updates") in {True, "true", "True", "1"}:
            session.pending.clear()
        session.url, session.secret = url, secret
        session.max_connections = int(params.get("max_connections") or 40)
        if params.get("allowed_updates") is not None:
            session.allowed = tuple(params["allowed_updates"]) or None
        if url:
            for update_id in list(session.pending):
                self._deliver(session, update_id)
        return True

    def _delete_webhook(self, session: Session, params: Json) -> bool:
        drop = {"drop_pending_updates": params.get("drop_pending_updates")}
        return self._set_webhook(session, {"url": "", **drop})

    def _webhook_info(self, session: Session, _params: Json) -> Json:
        info: Json = {
            "url": session.url,
            "has_custom_certificate": False,
            "pending_update_count": len(session.pending),
            "max_connections": session.max_connections,
        }
        if session.allowed:
            info["allowed_updates"] = list(session.allowed)
        if session.last_error:
            info["last_error_date"] = int(session.last_error_at)
            info["last_error_message"] = session.last_error
        return info

    async def _get_updates(self, session: Session, params: Json) -> Ready:
        if session.url:
            return failed(*ROWS["webhook_active"])
        if params.get("allowed_updates") is not None:
            session.allowed = tuple(params["allowed_updates"]) or None
        offset, limit = int(params.get("offset") or 0), int(params.get("limit") or 100)
        _confirm(session, offset)
        seconds = min(50.0, float(params.get("timeout") or 0))
        if seconds > 0 and not session.pending and not await self._long_poll(session, seconds):
            return failed(*ROWS["conflict"])
        items = [orjson.Fragment(one.body) for one in list(session.pending.values())[: min(100, limit)]]
        return Ready(orjson.dumps({"ok": True, "result": items}))

    async def _long_poll(self, session: Session, seconds: float) -> bool:
        """Wait for an update, at most so many wall seconds; False when another poller took over."""
        if session.poller is not None:
            session.poller.set()
        mine = session.poller = asyncio.Event()
        closing = asyncio.ensure_future(self.world.closing.wait())
        waking = asyncio.ensure_future(mine.wait())
        await asyncio.wait({closing, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        waking.cancel()
        if session.poller is not mine:
            return False
        session.poller = None
        return True

    def _update(self, contact: Contact, kind: str, part: Json) -> Replies:
        """Queue an update and deliver it if there is a webhook."""
        session = self._session(contact)
        if not session.wants(kind):
            return []
        session.update_id += 1
        update_id = session.update_id
        body = packed({"update_id": update_id, kind: part})
        first: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        session.pending[update_id] = Pending(contact, kind, body, self.world.clock.seconds(), first)
        if session.url:
            self._deliver(session, update_id)
        elif session.poller is not None:
            session.poller.set()
        return [first]

    def _deliver(self, session: Session, update_id: int) -> None:
        pending = session.pending[update_id]
        if pending.under_way:
            return
        pending.under_way = True
        headers = {"Content-Type": "application/json"}
        if session.secret:
            headers["X-Telegram-Bot-Api-Secret-Token"] = session.secret

        def finish(answer: Answer) -> None:
            self._delivered(session, update_id, answer)

        errand = Errand(
            channel=self.channel,
            account=session.account.name,
            person=pending.contact.person.id,
            event=pending.kind,
            url=lambda: session.url or None if update_id in session.pending else None,
            body=pending.body,
            headers=headers,
            retry=lambda tries, answer: self._retry(session, pending, tries, answer),
            on_answer=finish,
            keeps_lane=True,
            first=pending.first if not pending.first.done() else asyncio.get_running_loop().create_future(),
        )
        self.world.callbacks.post(errand)

    def _retry(self, session: Session, pending: Pending, tries: int, answer: Answer) -> float | None:
        now = self.world.clock.seconds()
        session.last_error_at = now
        session.last_error = (
            f"Wrong response from the webhook: {answer.status}" if answer.status else str(answer.error)
        )
        if now - pending.born > UPDATE_LIFETIME:
            return None
        if answer.retry_after and answer.retry_after.isdigit():
            return float(answer.retry_after)
        return min(LATEST_RETRY, 2.0 ** (tries - 1))

    def _delivered(self, session: Session, update_id: int, answer: Answer) -> None:
        if answer.error == "no address to call":
            if update_id in session.pending:
                session.pending[update_id].under_way = False
            return
        session.pending.pop(update_id, None)
        body = readable(answer.body)
        if isinstance(body, dict) and isinstance(body.get("method"), str):
            # A method may come back as the answer; its result is never seen (PLATFORMS C5).
            self._call(session, body["method"].lower(), body)

    def _session(self, contact: Contact) -> Session:
        bot = contact.account.bot
        assert isinstance(bot, TelegramBot)  # noqa: S101 - the directory keeps channels apart
        return self._sessions[bot.token]

    # What people do

    def start(self, contact: Contact, payload: str) -> Replies:
        """Press Start, behind a deep link with its payload."""
        if contact.standing is Standing.BLOCKED:
            return [*self.unblock(contact), *self.say(contact, f"/start {payload}".strip())]
        return self.say(contact, f"/start {payload}".strip())

    def say(self, contact: Contact, text: str) -> Replies:
        if contact.standing in {Standing.BLOCKED, Standing.LEFT}:
            raise NotPossible(f"{contact.person.id} has blocked the bot")
        contact.standing = Standing.ACTIVE
        session = self._session(contact)
        message: Json = {
            "message_id": session.next_message_id(),
            "from": _user(contact),
            "chat": _chat_json(contact),
            "date": int(self.world.clock.seconds()),
            "text": text,
        }
        if text.startswith("/"):
            command = text.split(maxsplit=1)[0]
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(command)}]
        return self._update(contact, "message", message)

    def press(self, message: Message, button: Button) -> Replies:
        contact = message.contact
        if contact.standing is not Standing.ACTIVE:
            raise NotPossible(f"{contact.person.id} has blocked the bot")
        session = self._session(contact)
        now = self.world.clock.seconds()
        query_id = str(int.from_bytes(draws.token(session.id, session.update_id), "big") >> 1)
        session.queries[query_id] = now
        shown: Json = {
            "message_id": int(message.message_id),
            "from": _user_of_bot(session),
            "chat": _chat_json(contact),
            "date": int(message.at),
            "caption" if message.raw.get("caption") else "text": message.content.text,
        }
        if message.raw.get("reply_markup"):
            shown["reply_markup"] = message.raw["reply_markup"]
        query = {
            "id": query_id,
            "from": _user(contact),
            "message": shown,
            "chat_instance": str(int.from_bytes(draws.token("instance", contact.chat), "big") >> 1),
            "data": button.value,
        }
        return self._update(contact, "callback_query", query)

    def leave(self, contact: Contact) -> Replies:
        """Who leaves a bot on Telegram blocks it."""
        return self.block(contact)

    def block(self, contact: Contact) -> Replies:
        return self._membership(contact, Standing.BLOCKED, "member", "kicked")

    def unblock(self, contact: Contact) -> Replies:
        return self._membership(contact, Standing.ACTIVE, "kicked", "member")

    def _membership(self, contact: Contact, standing: Standing, old: str, new: str) -> Replies:
        contact.standing = standing
        bot = _user_of_bot(self._session(contact))
        change = {
            "chat": _chat_json(contact),
            "from": _user(contact),
            "date": int(self.world.clock.seconds()),
            "old_chat_member": _member(bot, old),
            "new_chat_member": _member(bot, new),
        }
        return self._update(contact, "my_chat_member", change)

    def read(self, contact: Contact, message: Message | None) -> Replies:
        """Bots are not told (PLATFORMS C5)."""
        mark_read(contact, message, self.world.clock.seconds())
        return []

    def react(self, message: Message, reaction: str) -> Replies:
        change = {
            "chat": _chat_json(message.contact),
            "message_id": int(message.message_id),
            "user": _user(message.contact),
            "date": int(self.world.clock.seconds()),
            "old_reaction": [],
            "new_reaction": [{"type": "emoji", "emoji": reaction or "👍"}],
        }
        return self._update(message.contact, "message_reaction", change)

    def raw(self, contact: Contact, body: Json) -> Replies:
        """`body` is an update without its id: one kind and what it holds."""
        replies: Replies = []
        for kind, part in body.items():
            if kind != "update_id":
                replies += self._update(contact, kind, part)
        return replies


def _user_of_bot(session: Session) -> Json:
    return {"id": session.id, "is_bot": True, "first_name": "Sandbox", "username": session.bot.username}


def _user(contact: Contact) -> Json:
    language = contact.person.locale.partition("-")[0]
    return {
        "id": contact.person.telegram_id,
        "is_bot": False,
        "first_name": contact.person.first_name,
        "last_name": contact.person.last_name,
        "language_code": language,
    }


def _member(user: Json, status: str) -> Json:
    member = {"user": user, "status": status}
    return {**member, "until_date": 0} if status == "kicked" else member


def _chat_json(contact: Contact) -> Json:
    person = contact.person
    return {
        "id": person.telegram_id,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "type": "private",
    }


def _chat(session: Session, contact: Contact) -> orjson.Fragment:
    """The chat of an answer, serialized once for each chat: most of a broadcast's answers are alike."""
    known = session.chats.get(contact.chat)
    if known is None:
        known = session.chats[contact.chat] = orjson.Fragment(packed(_chat_json(contact)))
    return known


def _caption(params: Json) -> Json:
    text = params.get("caption")
    if not text:
        return {}
    shown, entities = parse(str(text), params.get("parse_mode"))
    if units(shown) > MAX_CAPTION:
        raise TelegramError(400, "Bad Request: message caption is too long")
    return {"caption": shown, "caption_entities": entities} if entities else {"caption": shown}


def _check_keyboard(markup: Any) -> None:
    if isinstance(markup, str):
        raise TelegramError(400, "Bad Request: object expected as reply markup")
    problem = keyboard_problem(markup)
    if problem:
        raise TelegramError(400, problem)


def _confirm(session: Session, offset: int) -> None:
    """Forget what the poller has seen: everything below its offset; a negative one counts from the end."""
    if offset < 0:
        offset = max([*session.pending, 0]) + 1 + offset
    for update_id in [one for one in session.pending if one < offset]:
        pending = session.pending.pop(update_id)
        if not pending.first.done():
            pending.first.set_result(Answer(200))
