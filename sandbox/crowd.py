"""People left to themselves: they receive, read, follow, press, react, stop and block, each when they like."""

import logging
from collections.abc import Callable
from functools import partial

from sandbox import draws
from sandbox.acts import Act, Acts, is_loopback
from sandbox.directory import Standing
from sandbox.messages import Button, Message
from sandbox.settings import Channel
from sandbox.world import NotPossible, World

logger = logging.getLogger(__name__)


class Crowd:
    """Decides by seed, person and number of the message, so that a run repeats."""

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts
        world.on_message = self.receive

    def receive(self, message: Message) -> None:
        """Somebody got a message: decide what comes of it."""
        behaviour, agenda = self._world.behaviour, self._world.agenda
        number = message.contact.account.sent if not self._world.record.keep else len(message.contact.messages)
        key = (self._world.settings.seed, message.contact.person.id, number)
        wait = 0.0
        if message.contact.account.channel is Channel.VIBER:
            wait = draws.exponential(behaviour.deliver_after, *key, "deliver")
            agenda.at(message.at + wait, partial(self._do, message, Act.DELIVER))
        if draws.fraction(*key, "read") < behaviour.read:
            wait += draws.exponential(behaviour.read_after, *key, "read after")
            agenda.at(message.at + wait, lambda: self._read(message, key))

    def _read(self, message: Message, key: tuple[int, str, int]) -> None:
        if self._gone(message):
            return
        if message.read_at is None:
            self._do(message, Act.READ)
        plan = self._plan(message, key)
        if plan is not None:
            wait = draws.exponential(self._world.behaviour.act_after, *key, "act after")
            self._world.agenda.after(wait, partial(self._attempt, message, plan))

    def _plan(self, message: Message, key: tuple[int, str, int]) -> Callable[[], object] | None:
        """What the person does after reading: at most one thing."""
        behaviour = self._world.behaviour
        contact, acts = message.contact, self._acts
        for act, share in ((Act.STOP, behaviour.stop), (Act.BLOCK, behaviour.block), (Act.REACT, behaviour.react)):
            if draws.fraction(*key, act) < share:
                return partial(acts.perform, contact, act, {"message_id": message.message_id})
        links = [
            button for button in message.content.buttons if button.kind == "link" and is_loopback(str(button.value))
        ]
        if links and draws.fraction(*key, Act.FOLLOW) < behaviour.follow:
            return partial(acts.follow, message, self._one_of(links, key))
        replies = [button for button in message.content.buttons if button.kind == "reply"]
        if replies and draws.fraction(*key, Act.PRESS) < behaviour.press:
            return partial(acts.press, message, self._one_of(replies, key))
        return None

    def _one_of(self, buttons: list[Button], key: tuple[int, str, int]) -> Button:
        return draws.pick(buttons, *key, "which")

    def _do(self, message: Message, act: Act) -> None:
        if not self._gone(message):
            args = {"message_id": message.message_id} if self._world.record.keep else {}
            self._attempt(message, partial(self._acts.perform, message.contact, act, args))

    def _attempt(self, message: Message, plan: Callable[[], object]) -> None:
        if self._gone(message):
            return
        try:
            plan()
        except NotPossible as reason:
            logger.debug("sandbox_act_not_possible", extra={"reason": str(reason)})

    def _gone(self, message: Message) -> bool:
        if not self._world.behaviour.auto or message.state == "deleted":
            return True
        return message.contact.standing is not Standing.ACTIVE
