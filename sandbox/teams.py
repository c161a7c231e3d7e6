"""Bot Connector: what Teams bots call, and what Teams calls them with (PLATFORMS A1 to A10)."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from sandbox import draws
from sandbox.callbacks import Errand
from sandbox.clock import iso
from sandbox.directory import Account, Contact, Standing
from sandbox.faults import Fault, FaultKind
from sandbox.limits import Window, Windows, whole_seconds
from sandbox.login import Login
from sandbox.messages import Button, Message
from sandbox.settings import Channel, TeamsBot
from sandbox.teams_cards import read_activity
from sandbox.world import JSON_HEADERS, Json, NotPossible, Platform, Replies, World, mark_read, plain

MAX_ACTIVITY = 100 * 1024
"""Bytes of an activity as UTF-16, inline pictures apart (PLATFORMS A8)."""
SEND_STEPS = ((7, 1.0), (8, 2.0), (60, 30.0), (1800, 3600.0))
MEMBER_STEPS = ((14, 1.0), (16, 2.0), (120, 30.0), (3600, 3600.0))
INLINE_PICTURE = re.compile(rb"data:image/[a-z+.-]+;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class TeamsError:
    """An error row of PLATFORMS A5."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def response(self) -> web.Response:
        """As the connector answers it."""
        headers = (
            JSON_HEADERS if self.retry_after is None else {**JSON_HEADERS, "Retry-After": str(self.retry_after)}
        )
        return web.Response(status=self.status, body=orjson.dumps(self._body()), headers=headers)

    def _body(self) -> Json:
        if self.code == "MessageWritesBlocked":
            # The one row whose detail is a string that holds JSON.
            detail = {"subCode": self.code, "details": self.message, "errorCode": 209, "errorSubCode": 1}
            return {"errorCode": 209, "message": orjson.dumps(detail).decode()}
        return {"error": {"code": self.code, "message": self.message}}


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    """Ends a request with an error row."""

    def __init__(self, error: TeamsError) -> None:
        super().__init__(error.code)
        self.error = error


ERRORS = {
    error.code: error
    for error in (
        TeamsError(400, "Bad Argument", "The payload of the request is not valid."),
        TeamsError(401, "BotNotRegistered", "There is no registration for this bot."),
        TeamsError(403, "BotDisabledByAdmin", "The administrator of the tenant disabled this bot."),
        TeamsError(403, "BotNotInConversationRoster", "The bot is not part of the conversation roster."),
        TeamsError(403, "ConversationBlockedByUser", "The user blocked the conversation with the bot."),
        TeamsError(403, "MessageWritesBlocked", "The thread cannot be written to."),
        TeamsError(403, "ForbiddenOperationException", "The bot is not installed in the user's personal scope."),
        TeamsError(403, "InvalidBotApiHost", "The service URL is not valid for this tenant."),
        TeamsError(403, "NotEnoughPermissions", "The bot lacks the permission for this operation."),
        TeamsError(404, "ConversationNotFound", "The conversation was not found."),
        TeamsError(404, "ActivityNotFoundInConversation", "The activity was not found in the conversation."),
        TeamsError(412, "PreconditionFailed", "A dependency failed: concurrent work on one conversation."),
        TeamsError(413, "MessageSizeTooBig", "The message is too large."),
        TeamsError(429, "Throttled", "Too many requests."),
        TeamsError(500, "ServiceError", "An internal error occurred."),
        TeamsError(502, "BadGateway", "A service behind the connector failed."),
        TeamsError(503, "ServiceUnavailable", "The service is unavailable."),
        TeamsError(504, "GatewayTimeout", "The gateway timed out."),
    )
}
UNAUTHORIZED = TeamsError(401, "Unauthorized", "Authorization has been denied for this request.")
NO_SUCH_MEMBER = TeamsError(404, "MemberNotFoundInConversation", "The member was not found.")
STANDING_ERRORS = {
    Standing.STRANGER: ERRORS["BotNotInConversationRoster"],
    Standing.LEFT: ERRORS["BotNotInConversationRoster"],
    Standing.BLOCKED: ERRORS["ConversationBlockedByUser"],
}


@dataclass(frozen=True)
class Call:
    """One request of a bot, as far as it is understood."""

    request: web.Request
    method: str
    raw: bytes
    account: Account | None
    contact: Contact | None

    def json(self) -> Json:
        """The body, which must be an object."""
        try:
            body = orjson.loads(self.raw)
        except orjson.JSONDecodeError as error:
            raise Refused(ERRORS["Bad Argument"]) from error
        if not isinstance(body, dict):
            raise Refused(ERRORS["Bad Argument"])
        return body


class Teams(Platform):
    """The connector and its callbacks."""

    channel = Channel.TEAMS

    def __init__(self, world: World, login: Login) -> None:
        super().__init__(world)
        self._login = login
        self.endpoints: dict[str, str] = {}
        """Where activities go, by app id; Teams has no call to set it."""
        self._sends = Windows(SEND_STEPS)
        self._creates = Windows(SEND_STEPS)
        self._lookups = Windows(MEMBER_STEPS)
        self._apps: dict[str, Window] = {}
        self._events = 0
        for account in world.directory.on(Channel.TEAMS):
            self.endpoints[bot_of(account).app_id] = world.settings.teams_endpoint or bot_of(account).endpoint

    @property
    def service_url(self) -> str:
        """What activities carry as `serviceUrl`."""
        return f"{self.world.url}/teams/"

    def reset(self) -> None:
        for windows in (self._sends, self._creates, self._lookups):
            windows.clear()
        self._apps.clear()

    # What bots call

    def routes(self) -> list[web.RouteDef]:
        base = "/teams/v3/conversations"
        one = base + "/{chat}"
        return [
            web.post(base, self._served("createConversation", self._create)),
            web.post(one + "/activities", self._served("sendToConversation", self._send)),
            web.post(one + "/activities/{activity}", self._served("replyToActivity", self._send)),
            web.put(one + "/activities/{activity}", self._served("updateActivity", self._update)),
            web.delete(one + "/activities/{activity}", self._served("deleteActivity", self._delete)),
            web.get(one + "/activities/{activity}/members", self._served("getMembers", self._members)),
            web.get(one + "/members", self._served("getMembers", self._members)),
            web.get(one + "/pagedmembers", self._served("getPagedMembers", self._paged_members)),
            web.get(one + "/members/{member}", self._served("getMember", self._member)),
        ]

    def _served(self, method: str, serve: Callable[[Call], web.Response]) -> Callable[[web.Request], Any]:
        async def handler(request: web.Request) -> web.Response:
            response = await self._answer(request, method, serve)
            self.world.stats.requests[self.channel, method, response.status] += 1
            return response

        return handler

    async def _answer(
        self, request: web.Request, method: str, serve: Callable[[Call], web.Response]
    ) -> web.Response:
        raw = await request.read()
        grant = self._login.grant_of(request, "bot")
        account = grant.account if grant else None
        chat = request.match_info.get("chat", "")
        contact = account.by_chat.get(chat) if account else None
        call = Call(request, method, raw, account, contact)
        faults = self.world.faults
        if faults.rules:
            fault = faults.strike(self.channel, method, account.name if account else None, self._person_id(call))
            if fault is not None:
                return await self.faulty(fault, request, lambda: self._right(call, serve))
        return self._checked(call, serve)

    async def _right(self, call: Call, serve: Callable[[Call], web.Response]) -> web.Response:
        return self._checked(call, serve)

    def _person_id(self, call: Call) -> str | None:
        if call.contact is None and call.account is not None and call.method == "createConversation":
            try:
                found = _member(call.account, call.json())
            except Refused:
                return None
            return found.person.id if found else None
        return call.contact.person.id if call.contact else None

    def _checked(self, call: Call, serve: Callable[[Call], web.Response]) -> web.Response:
        if call.account is None:
            return UNAUTHORIZED.response()
        try:
            self._count(call.account)
            return serve(call)
        except Refused as refused:
            return refused.error.response()
        except (AttributeError, TypeError, ValueError):
            return ERRORS["Bad Argument"].response()

    def _count(self, account: Account) -> None:
        """50 requests a second for one app in one tenant (PLATFORMS A4)."""
        limits, now = self.world.settings.limits, self.world.clock.seconds()
        window = self._apps.get(account.name)
        if window is None:
            most = int(limits.teams_per_second * (1 + limits.tolerance))
            window = self._apps[account.name] = Window(most, 1.0)
        wait = window.wait(now)
        if wait > 0 and self.world.breach(self.channel, account.name, "app_per_second"):
            raise Refused(_throttled(wait))
        window.note(now)

    def _thread(self, windows: Windows, contact: Contact, limit: str) -> None:
        now = self.world.clock.seconds()
        wait = windows.wait(contact.chat, now)
        if wait > 0 and self.world.breach(self.channel, contact.account.name, limit):
            raise Refused(_throttled(wait))
        windows.note(contact.chat, now)

    def _create(self, call: Call) -> web.Response:
        body = call.json()
        account = _required(call.account)
        if body.get("isGroup") or (body.get("channelData") or {}).get("channel"):
            raise Refused(ERRORS["Bad Argument"])
        contact = _member(account, body)
        tenant = ((body.get("channelData") or {}).get("tenant") or {}).get("id") or body.get("tenantId")
        if contact is None or tenant != bot_of(account).tenant_id:
            raise Refused(ERRORS["Bad Argument"])
        if contact.standing in {Standing.STRANGER, Standing.LEFT}:
            raise Refused(ERRORS["ForbiddenOperationException"])
        self._thread(self._creates, contact, "create_per_thread")
        answer: Json = {"id": contact.chat, "serviceUrl": self.service_url}
        if isinstance(body.get("activity"), dict):
            answer["activityId"] = self._receive(contact, body["activity"])
        return _json(answer, status=201)

    def _send(self, call: Call) -> web.Response:
        contact = self._reachable(call)
        activity = call.json()
        if not isinstance(activity.get("type"), str):
            raise Refused(ERRORS["Bad Argument"])
        _check_size(call.raw)
        self._thread(self._sends, contact, "send_per_thread")
        if activity["type"] != "message":
            return _json({"id": self._next_id(contact)}, status=201)
        if activity.get("text") and activity.get("attachments"):
            return self._split(contact, activity)
        return _json({"id": self._receive(contact, activity)}, status=201)

    def _split(self, contact: Contact, activity: Json) -> web.Response:
        """Text and attachment go out as two messages, and no usable id comes back (PLATFORMS A2)."""
        self._thread(self._sends, contact, "send_per_thread")
        self._receive(contact, {**activity, "attachments": []})
        self._receive(contact, {**activity, "text": None})
        return _json({}, status=201)

    def _update(self, call: Call) -> web.Response:
        contact = self._reachable(call)
        activity, activity_id = call.json(), call.request.match_info["activity"]
        _check_size(call.raw)
        self._thread(self._sends, contact, "send_per_thread")
        self._sent_message(contact, activity_id, lambda message: message.edit(activity))
        return _json({"id": activity_id})

    def _delete(self, call: Call) -> web.Response:
        contact = self._reachable(call)

        def delete(message: Message) -> None:
            message.state = "deleted"

        self._sent_message(contact, call.request.match_info["activity"], delete)
        return web.Response(status=200)

    def _sent_message(self, contact: Contact, activity_id: str, change: Callable[[Message], None]) -> None:
        message = contact.message(activity_id)
        if message is not None:
            change(message)
        elif self.world.record.keep:
            raise Refused(ERRORS["ActivityNotFoundInConversation"])

    def _members(self, call: Call) -> web.Response:
        return _json([self._roster(call)])

    def _paged_members(self, call: Call) -> web.Response:
        return _json({"members": [self._roster(call)], "continuationToken": None})

    def _member(self, call: Call) -> web.Response:
        member = call.request.match_info["member"]
        contact = self._reachable(call)
        if member not in {contact.user_id, contact.person.entra_id}:
            raise Refused(NO_SUCH_MEMBER)
        return _json(self._roster(call))

    def _roster(self, call: Call) -> Json:
        contact = self._reachable(call)
        self._thread(self._lookups, contact, "members_per_thread")
        return as_member(contact)

    def _reachable(self, call: Call) -> Contact:
        if call.contact is None:
            raise Refused(ERRORS["ConversationNotFound"])
        if call.contact.standing is not Standing.ACTIVE:
            raise Refused(STANDING_ERRORS[call.contact.standing])
        return call.contact

    def _receive(self, contact: Contact, activity: Json) -> str:
        message_id = self._next_id(contact)
        self.world.receive(contact, message_id, activity, read_activity, self.world.clock.seconds())
        return message_id

    def _next_id(self, contact: Contact) -> str:
        """Milliseconds since 1970, strictly increasing in a conversation (PLATFORMS A6)."""
        contact.last_id = max(int(self.world.clock.seconds() * 1000), contact.last_id + 1)
        return str(contact.last_id)

    def wrong(self, fault: Fault) -> web.Response:
        match fault.kind:
            case FaultKind.THROTTLE:
                return TeamsError(429, "Throttled", "Too many requests.", fault.retry_after).response()
            case FaultKind.REFUSE:
                return ERRORS[fault.code or "ConversationBlockedByUser"].response()
            case FaultKind.PLATFORM_ERROR:
                row = ERRORS.get(fault.code or "") or TeamsError(400, fault.code or "", "An error on request.")
                return TeamsError(fault.status or row.status, row.code, row.message, fault.retry_after).response()
            case _:
                return plain(fault.status or 500, fault.body or "The service is unavailable.")

    # What people do

    def start(self, contact: Contact, payload: str) -> Replies:
        """Install the app: the bot is told twice, as Teams does; a payload is then said."""
        self.require_not_blocked(contact)
        contact.standing = Standing.ACTIVE
        members = {"type": "conversationUpdate", "membersAdded": [{"id": _bot_id(contact)}, _user(contact)]}
        told = [
            self._post(contact, members),
            self._post(contact, {"type": "installationUpdate", "action": "add"}),
        ]
        return [reply for replies in told for reply in replies] + (self.say(contact, payload) if payload else [])

    def say(self, contact: Contact, text: str) -> Replies:
        self.require_installed(contact)
        return self._post(contact, {"type": "message", "text": text, "textFormat": "plain", "attachments": []})

    def press(self, message: Message, button: Button) -> Replies:
        contact, source = message.contact, button.source
        self.require_installed(contact)
        if source.get("type") == "Action.Execute":
            action = {key: source.get(key) for key in ("type", "id", "verb", "data")}
            value = {"action": action, "trigger": "manual"}
            invoke = {"type": "invoke", "name": "adaptiveCard/action", "value": value}
            return self._post(contact, {**invoke, "replyToId": message.message_id})
        if source.get("type") == "imBack":
            return self._post(contact, {"type": "message", "text": str(button.value), "textFormat": "plain"})
        return self._submit(message, button)

    def _submit(self, message: Message, button: Button) -> Replies:
        data, text = button.value, None
        teams = data.get("msteams") if isinstance(data, dict) else None
        value: Any = data
        if isinstance(data, dict) and isinstance(teams, dict):
            value = {key: one for key, one in data.items() if key != "msteams"}
            text = teams.get("text") if teams.get("type") == "messageBack" else None
            if teams.get("type") == "imBack":
                return self._post(message.contact, {"type": "message", "text": str(teams.get("value"))})
        body: Json = {"type": "message", "value": value, "replyToId": message.message_id}
        return self._post(message.contact, body if text is None else {**body, "text": text})

    def leave(self, contact: Contact) -> Replies:
        """Uninstall the app."""
        self.require_installed(contact)
        contact.standing = Standing.LEFT
        return self._post(contact, {"type": "installationUpdate", "action": "remove"})

    def block(self, contact: Contact) -> Replies:
        """Teams does not tell: the next send is refused."""
        contact.standing = Standing.BLOCKED
        return []

    def unblock(self, contact: Contact) -> Replies:
        """Not told either; whoever uninstalled has to `start` again."""
        if contact.standing is Standing.BLOCKED:
            contact.standing = Standing.ACTIVE
            return []
        return self.start(contact, "")

    def read(self, contact: Contact, message: Message | None) -> Replies:
        newest = mark_read(contact, message, self.world.clock.seconds())
        if newest is None:
            return []
        receipt = {
            "type": "event",
            "name": "application/vnd.microsoft.readReceipt",
            "value": {"lastReadMessageId": (message or newest).message_id},
        }
        return self._post(contact, receipt)

    def react(self, message: Message, reaction: str) -> Replies:
        added = [{"type": reaction or "like"}]
        body = {"type": "messageReaction", "reactionsAdded": added, "replyToId": message.message_id}
        return self._post(message.contact, body)

    def raw(self, contact: Contact, body: Json) -> Replies:
        return self._post(contact, body)

    def require_installed(self, contact: Contact) -> None:
        """Only who has the app installed can use it."""
        if contact.standing in {Standing.STRANGER, Standing.LEFT}:
            raise NotPossible(f"{contact.person.id} has not installed the app")

    def require_not_blocked(self, contact: Contact) -> None:
        """Who blocked the bot has to unblock it first."""
        if contact.standing is Standing.BLOCKED:
            raise NotPossible(f"{contact.person.id} has blocked the bot")

    def _post(self, contact: Contact, body: Json) -> Replies:
        bot = bot_of(contact.account)
        event = str(body.get("type"))
        activity = {**self._frame(contact, event), **body}
        token = self._login.call_token(bot.app_id, self.service_url)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Authorization": f"Bearer {token}",
            "x-ms-conversation-id": contact.chat,
            "x-ms-tenant-id": bot.tenant_id,
        }
        errand = Errand(
            channel=self.channel,
            account=contact.account.name,
            person=contact.person.id,
            event=activity.get("name") or (f"{event} {activity['action']}" if "action" in activity else event),
            url=lambda: self.endpoints.get(bot.app_id),
            body=orjson.dumps(activity),
            headers=headers,
        )
        return [self.world.callbacks.post(errand)]

    def _event_id(self, contact: Contact) -> str:
        self._events += 1
        mark = draws.token(self.world.settings.seed, contact.chat, self._events, size=16)
        return f"f:{uuid.UUID(bytes=mark)}"

    def _frame(self, contact: Contact, kind: str) -> Json:
        """What every activity from Teams carries (PLATFORMS A1)."""
        tenant, person = bot_of(contact.account).tenant_id, contact.person
        conversation = {"conversationType": "personal", "tenantId": tenant, "id": contact.chat}
        return {
            "id": self._next_id(contact) if kind == "message" else self._event_id(contact),
            "timestamp": iso(self.world.clock.seconds()),
            "channelId": "msteams",
            "serviceUrl": self.service_url,
            "from": _user(contact),
            "recipient": {"id": _bot_id(contact), "name": "Sandbox"},
            "conversation": conversation,
            "channelData": {"tenant": {"id": tenant}},
            "locale": person.locale,
            "localTimezone": person.timezone,
            "entities": [
                {
                    "type": "clientInfo",
                    "locale": person.locale,
                    "country": person.country,
                    "platform": "Windows",
                    "timezone": person.timezone,
                }
            ],
        }


def bot_of(account: Account) -> TeamsBot:
    """The registration behind a Teams account."""
    assert isinstance(account.bot, TeamsBot)  # noqa: S101 - the directory keeps channels apart
    return account.bot


def as_member(contact: Contact) -> Json:
    """A person as the roster lists them."""
    person = contact.person
    return {
        "id": contact.user_id,
        "name": person.name,
        "givenName": person.first_name,
        "surname": person.last_name,
        "objectId": person.entra_id,
        "aadObjectId": person.entra_id,
        "email": person.email,
        "userPrincipalName": person.email,
        "tenantId": bot_of(contact.account).tenant_id,
        "userRole": "user",
    }


def _user(contact: Contact) -> Json:
    return {"id": contact.user_id, "name": contact.person.name, "aadObjectId": contact.person.entra_id}


def _bot_id(contact: Contact) -> str:
    return f"28:{bot_of(contact.account).app_id}"


def _member(account: Account, body: Json) -> Contact | None:
    """Who is named by a `29:` id or, in any case, an Entra object id."""
    member = _member_id(body)
    return account.by_user.get(member) or account.by_user.get(member.lower())


def _member_id(body: Json) -> str:
    members = body.get("members")
    if not isinstance(members, list) or len(members) != 1 or not isinstance(members[0], dict):
        raise Refused(ERRORS["Bad Argument"])
    return str(members[0].get("id") or members[0].get("aadObjectId") or members[0].get("objectId") or "")


def _required(account: Account | None) -> Account:
    if account is None:
        raise Refused(UNAUTHORIZED)
    return account


def _check_size(raw: bytes) -> None:
    # Every byte of UTF-8 becomes at most two bytes of UTF-16: most activities need no second look.
    if 2 * len(raw) <= MAX_ACTIVITY:
        return
    text = INLINE_PICTURE.sub(b"", orjson.dumps(orjson.loads(raw))).decode()
    if len(text.encode("utf-16-le")) > MAX_ACTIVITY:
        raise Refused(ERRORS["MessageSizeTooBig"])


def _throttled(wait: float) -> TeamsError:
    return TeamsError(429, "Throttled", "Too many requests.", whole_seconds(wait))


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), headers=JSON_HEADERS)
