"""`/sandbox/...`: looking at the simulated world and acting in it. JSON; for this machine only by default."""

import asyncio
import dataclasses
import ipaddress
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from sandbox.acts import Act
from sandbox.availability import ACTIVITIES, Presence
from sandbox.callbacks import Answer
from sandbox.clock import iso
from sandbox.directory import Contact, Standing
from sandbox.faults import Fault, FaultKind
from sandbox.messages import Query
from sandbox.people import Person, Wish
from sandbox.settings import Channel, PresenceShares
from sandbox.world import JSON_HEADERS, Json, NotPossible, Replies

if TYPE_CHECKING:
    from sandbox.server import Sandbox

Handler = Callable[[web.Request], Awaitable[web.Response]]
MAX_PEOPLE_PAGE = 1000
ACT_WAIT = 20.0
"""Wall seconds that a call waits for the bot's answer to an act; `wait_seconds` changes it."""


NOT_YET = {"status": None, "error": "not answered yet", "location": None, "body": None}


class FaultChannel(StrEnum):
    """Where faults can be set."""

    TEAMS = "teams"
    TELEGRAM = "telegram"
    VIBER = "viber"
    GRAPH = "graph"
    LOGIN = "login"


class ControlError(Exception):
    """Ends a control request with a problem."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Control:
    """The handlers of /sandbox."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._world = sandbox.world

    def routes(self) -> list[web.RouteDef]:
        """Where control listens."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/sandbox/messages", self._messages),
            ("GET", "/sandbox/people", self._people),
            ("POST", "/sandbox/people", self._add_people),
            ("GET", "/sandbox/people/{person}", self._person),
            ("POST", "/sandbox/people/{person}/acts", self._act),
            ("POST", "/sandbox/acts:start_everyone", self._start_everyone),
            ("PUT", "/sandbox/people/{person}/presence", self._pin),
            ("DELETE", "/sandbox/people/{person}/presence", self._unpin),
            ("GET", "/sandbox/behaviour", self._behaviour),
            ("PUT", "/sandbox/behaviour", self._set_behaviour),
            ("GET", "/sandbox/faults", self._faults),
            ("POST", "/sandbox/faults", self._add_fault),
            ("DELETE", "/sandbox/faults", self._clear_faults),
            ("DELETE", "/sandbox/faults/{fault}", self._remove_fault),
            ("GET", "/sandbox/stats", self._stats),
            ("GET", "/sandbox/clock", self._clock),
            ("POST", "/sandbox/clock:advance", self._advance),
            ("GET", "/sandbox/callbacks", self._callbacks),
            ("GET", "/sandbox/bots", self._bots),
            ("POST", "/sandbox/bots", self._add_bot),
            ("PUT", "/sandbox/teams/endpoint", self._endpoint),
            ("POST", "/sandbox/teams/keys:rotate", self._rotate),
            ("POST", "/sandbox/teams/tokens:revoke", self._revoke),
            ("POST", "/sandbox/teams/tokens:forge", self._forge),
            ("GET", "/sandbox/telegram/callback_answers", self._callback_answers),
            ("GET", "/sandbox/env", self._env),
            ("POST", "/sandbox/reset", self._reset),
        ]
        return [web.route(method, path, self._guarded(handler)) for method, path, handler in table]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.Response:
            try:
                self._require_loopback(request)
                return await handler(request)
            except ControlError as error:
                return _json({"title": str(error), "status": error.status}, error.status)
            except NotPossible as error:
                return _json({"title": str(error), "status": 409}, 409)
            except (ValueError, TypeError, KeyError) as error:
                return _json({"title": f"{type(error).__name__}: {error}", "status": 422}, 422)

        return guarded

    def _require_loopback(self, request: web.Request) -> None:
        if self._world.settings.control_from_anywhere:
            return
        peer = request.transport.get_extra_info("peername") if request.transport else None
        if not peer or not ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback:
            raise ControlError(403, "the control interface answers this machine only")

    # Looking

    async def _messages(self, request: web.Request) -> web.Response:
        asked = request.query
        query = Query(
            channel=asked.get("channel"),
            account=asked.get("account"),
            since_seq=int(asked.get("since_seq", 0)),
            limit=int(asked.get("limit", 1000)),
        )
        among = None
        if "person" in asked:
            contacts = self._world.directory.contacts_of(asked["person"])
            messages = (message for contact in contacts for message in contact.messages)
            among = sorted(messages, key=lambda message: message.seq)
        found, next_seq = self._world.record.page(query, among)
        items = [message.as_json() for message in found]
        return _json({"items": items, "next_seq": next_seq, "total": self._world.record.total})

    async def _people(self, request: web.Request) -> web.Response:
        channel, page = request.query.get("channel"), int(request.query.get("page", 1))
        per_page = min(MAX_PEOPLE_PAGE, int(request.query.get("per_page", 100)))
        people = [
            one for one in self._world.directory.people.values() if channel is None or channel in one.channels
        ]
        shown = people[(page - 1) * per_page : page * per_page]
        items = [self._person_json(one) for one in shown]
        return _json({"items": items, "page": page, "per_page": per_page, "total": len(people)})

    async def _person(self, request: web.Request) -> web.Response:
        return _json(self._person_json(self._named(request)))

    def _person_json(self, person: Person) -> Json:
        presence = self._world.presence_of(person)
        return {
            **{one.name: getattr(person, one.name) for one in dataclasses.fields(person)},
            "name": person.name,
            "availability": presence.availability,
            "activity": presence.activity,
            "pinned": person.id in self._world.pins,
            "accounts": [
                {
                    "channel": contact.account.channel,
                    "account": contact.account.name,
                    "user_id": contact.user_id,
                    "chat": contact.chat,
                    "standing": contact.standing,
                    "messages": len(contact.messages),
                    "unread": sum(1 for one in contact.messages if one.read_at is None and one.state != "deleted"),
                }
                for contact in self._world.directory.contacts_of(person.id)
            ],
        }

    async def _stats(self, _request: web.Request) -> web.Response:
        world, callbacks = self._world, self._world.callbacks
        counts: dict[str, dict[str, int]] = {}
        for (channel, outcome), count in sorted(world.stats.callbacks.items()):
            counts.setdefault(channel, {})[outcome] = count
        accounts = {f"{one.channel}/{one.name}": one.sent for one in world.directory.accounts.values()}
        return _json(
            {
                **world.stats.as_json(),
                "messages": world.record.total,
                "messages_per_account": accounts,
                "callbacks": {**counts, "pending": callbacks.pending},
                "acts_planned": len(world.agenda),
                "people": len(world.directory.people),
            }
        )

    async def _clock(self, _request: web.Request) -> web.Response:
        clock = self._world.clock
        return _json({"now": iso(clock.seconds()), "speed": clock.speed, "epoch": iso(clock.epoch.timestamp())})

    async def _callbacks(self, request: web.Request) -> web.Response:
        asked = request.query
        wanted = {key: asked[key] for key in ("channel", "account", "person", "event") if key in asked}
        log = self._world.callbacks.log
        items = [one for one in log if all(one[key] == value for key, value in wanted.items())]
        return _json({"items": items[-int(asked.get("limit", 200)) :], "pending": self._world.callbacks.pending})

    async def _env(self, _request: web.Request) -> web.Response:
        return web.Response(text="".join(f"{key}={value}\n" for key, value in self._sandbox.env().items()))

    async def _bots(self, _request: web.Request) -> web.Response:
        accounts = self._world.directory.accounts.values()
        return _json({"items": [{"channel": one.channel, **dataclasses.asdict(one.bot)} for one in accounts]})

    async def _callback_answers(self, request: web.Request) -> web.Response:
        account = request.query.get("account", "default")
        return _json({"items": self._sandbox.telegram.answers(account)})

    # Acting

    async def _act(self, request: web.Request) -> web.Response:
        person, args = self._named(request), await _object(request)
        act = Act(args.pop("act", ""))
        wait = float(args.pop("wait_seconds", ACT_WAIT))
        times = int(args.pop("times", 1))
        contacts = self._contacts(person, args.pop("channel", None), args.pop("account", None))
        replies: Replies = []
        for contact in contacts:
            for _ in range(times):
                replies += self._sandbox.acts.perform(contact, act, args)
        answers = await _answers(replies, wait)
        last = answers[-1] if answers else None
        callbacks = [NOT_YET if one is None else one.as_json() for one in answers]
        body = {"act": act, "person": person.id, "status": last.status if last else None, "callbacks": callbacks}
        return _json(body)

    async def _start_everyone(self, request: web.Request) -> web.Response:
        args = await _object(request)
        channel, account = args.get("channel"), args.get("account")
        wait = float(args.get("wait_seconds", 120.0))
        contacts = [one for one in self._world.directory.contacts() if _wanted(one, channel, account)]
        replies: Replies = []
        for contact in contacts:
            if contact.standing is not Standing.ACTIVE:
                replies += self._sandbox.acts.perform(contact, Act.START, {"payload": args.get("payload")})
        answers = await _answers(replies, wait)
        outcomes: dict[str, int] = {}
        for answer in answers:
            word = "unanswered" if answer is None else str(answer.status or "unreachable")
            outcomes[word] = outcomes.get(word, 0) + 1
        refused = sum(1 for answer in answers if answer is None or not answer.ok)
        active = sum(1 for one in contacts if one.standing is Standing.ACTIVE)
        counts = {"people": len(contacts), "active": active, "callbacks": len(answers), "refused": refused}
        return _json({**counts, "statuses": outcomes})

    async def _add_people(self, request: web.Request) -> web.Response:
        args = await _object(request)
        standing = Standing.ACTIVE if args.get("started") else Standing.STRANGER
        added: list[Person] = []
        for channels, count in _counts(args).items():
            # "teams", or several as in "teams,viber": one person who lives on all of them.
            wish = Wish(tuple(Channel(one.strip()) for one in channels.split(",")))
            added += [self._world.directory.add(wish, standing) for _ in range(int(count))]
        for one in args.get("people") or ():
            added.append(self._add_person(dict(one), standing))
        shown = [self._person_json(person) for person in added[:MAX_PEOPLE_PAGE]]
        return _json({"items": shown, "total": len(added)}, 201)

    def _add_person(self, wish: Json, standing: Standing) -> Person:
        availability = wish.pop("availability", None)
        if wish.pop("started", False):
            standing = Standing.ACTIVE
        channels = wish.pop("channels", None) or [wish.pop("channel")]
        person = self._world.directory.add(Wish(tuple(Channel(one) for one in channels), **wish), standing)
        if availability is not None:
            self._world.pins[person.id] = _presence(availability, None)
        return person

    async def _pin(self, request: web.Request) -> web.Response:
        person, args = self._named(request), await _object(request)
        self._world.pins[person.id] = _presence(str(args["availability"]), args.get("activity"))
        return _json(self._person_json(person))

    async def _unpin(self, request: web.Request) -> web.Response:
        person = self._named(request)
        self._world.pins.pop(person.id, None)
        return _json(self._person_json(person))

    async def _behaviour(self, _request: web.Request) -> web.Response:
        return _json(dataclasses.asdict(self._world.behaviour))

    async def _set_behaviour(self, request: web.Request) -> web.Response:
        args = await _object(request)
        for key in {"at_work", "off_work"} & args.keys():
            args[key] = PresenceShares(**args[key])
        self._world.behaviour = dataclasses.replace(self._world.behaviour, **args)
        return _json(dataclasses.asdict(self._world.behaviour))

    async def _faults(self, _request: web.Request) -> web.Response:
        return _json({"items": [rule.as_json() for rule in self._world.faults.rules]})

    async def _add_fault(self, request: web.Request) -> web.Response:
        args = await _object(request)
        kind, channel = FaultKind(args.pop("kind")), FaultChannel(args.pop("channel"))
        if args.get("code") is not None:
            args["code"] = str(args["code"])
        for key in ("id", "hits", "until"):
            args.pop(key, None)
        return _json(self._world.faults.add(Fault(channel=channel, kind=kind, **args)).as_json(), 201)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._world.faults.clear()
        return web.Response(status=204)

    async def _remove_fault(self, request: web.Request) -> web.Response:
        if not self._world.faults.remove(request.match_info["fault"]):
            raise ControlError(404, "no such fault")
        return web.Response(status=204)

    async def _advance(self, request: web.Request) -> web.Response:
        args = await _object(request)
        self._world.clock.advance(float(args["seconds"]))
        self._world.agenda.look()
        # One turn of the loop, so that what is now due has begun when this is answered.
        await asyncio.sleep(0)
        return await self._clock(request)

    async def _add_bot(self, request: web.Request) -> web.Response:
        args = await _object(request)
        account = self._sandbox.open_bot(Channel(args.pop("channel")), args)
        return _json({"channel": account.channel, **dataclasses.asdict(account.bot)}, 201)

    async def _endpoint(self, request: web.Request) -> web.Response:
        args = await _object(request)
        endpoints = self._sandbox.teams.endpoints
        app_id = args.get("app_id") or next(iter(endpoints), "")
        if app_id not in endpoints:
            raise ControlError(404, f"no app {app_id}")
        endpoints[app_id] = str(args["url"])
        return _json({"app_id": app_id, "url": endpoints[app_id]})

    async def _rotate(self, _request: web.Request) -> web.Response:
        return _json({"kid": self._sandbox.login.rotate()})

    async def _revoke(self, _request: web.Request) -> web.Response:
        return _json({"revoked": self._sandbox.login.revoke()})

    async def _forge(self, request: web.Request) -> web.Response:
        args = await _object(request)
        app_id = str(args.get("app_id") or next(iter(self._sandbox.teams.endpoints)))
        claims = dict(args.get("claims") or {})
        return _json({"token": self._sandbox.login.call_token(app_id, self._sandbox.teams.service_url, **claims)})

    async def _reset(self, _request: web.Request) -> web.Response:
        self._sandbox.reset()
        return web.Response(status=204)

    def _named(self, request: web.Request) -> Person:
        person = self._world.directory.people.get(request.match_info["person"])
        if person is None:
            raise ControlError(404, f"no person {request.match_info['person']}")
        return person

    def _contacts(self, person: Person, channel: str | None, account: str | None) -> list[Contact]:
        """With no channel or account named: the first of the person's."""
        contacts = [one for one in self._world.directory.contacts_of(person.id) if _wanted(one, channel, account)]
        if not contacts:
            raise ControlError(404, f"{person.id} has no such account")
        return contacts[:1]


def _wanted(contact: Contact, channel: str | None, account: str | None) -> bool:
    return (channel is None or contact.account.channel == channel) and (
        account is None or contact.account.name == account
    )


def _counts(args: Json) -> dict[str, int]:
    """How many on which channels: a count by channel, one for a named channel, or one for each channel."""
    count = args.get("count") or {}
    if isinstance(count, int):
        return dict.fromkeys([args["channel"]] if "channel" in args else list(Channel), count)
    return dict(count)


def _presence(availability: str, activity: str | None) -> Presence:
    return Presence(availability, activity or ACTIVITIES.get(availability, (availability,))[0])


async def _answers(replies: Replies, wait: float) -> list[Answer | None]:
    """The bot's answers; None where there is none in time."""
    if replies:
        await asyncio.wait(replies, timeout=wait)
    return [reply.result() if reply.done() else None for reply in replies]


async def _object(request: web.Request) -> Json:
    raw = await request.read()
    body = orjson.loads(raw) if raw else {}
    if not isinstance(body, dict):
        raise ControlError(422, "an object is expected")
    return body


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), headers=JSON_HEADERS)
