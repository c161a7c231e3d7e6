"""botbuilder's part: it tells which kind of activity is which hook. What is said over our own session never passes
through it (an archived package: kept to this file)."""

from __future__ import annotations

from botbuilder.core import BotAdapter, TurnContext
from botbuilder.core.teams import TeamsActivityHandler
from botbuilder.schema import Activity

from bot.channels.teams.turn import Turn

_TURN = "clarion.turn"


class _Adapter(BotAdapter):  # type: ignore[misc] # the package ships no types
    """Carries a turn and sends nothing: answers go out through the channel, like every other message, and a call of
    these is a fault of ours."""

    async def send_activities(self, context: TurnContext, activities: list[Activity]) -> list[object]:
        raise NotImplementedError

    async def update_activity(self, context: TurnContext, activity: Activity) -> None:
        raise NotImplementedError

    async def delete_activity(self, context: TurnContext, reference: object) -> None:
        raise NotImplementedError


class _Hooks(TeamsActivityHandler):  # type: ignore[misc] # the package ships no types
    """What each hook means to us. Hooks not named here mean nothing."""

    async def on_message_activity(self, turn_context: TurnContext) -> None:
        _turn(turn_context).message()

    async def on_installation_update_add(self, turn_context: TurnContext) -> None:
        _turn(turn_context).installed()

    async def on_installation_update_remove(self, turn_context: TurnContext) -> None:
        _turn(turn_context).removed()

    async def on_conversation_update_activity(self, turn_context: TurnContext) -> None:
        """Not the hooks for Teams' members: for each one those ask the connector who it is."""
        _turn(turn_context).members_added()

    async def on_message_reaction_activity(self, turn_context: TurnContext) -> None:
        _turn(turn_context).seen()

    async def on_teams_read_receipt_event(self, read_receipt_info: object, turn_context: TurnContext) -> None:
        _turn(turn_context).read(read_receipt_info)

    async def on_invoke_activity(self, turn_context: TurnContext) -> None:
        """Not the hooks below it: what they answer to a faulty invoke cannot be written as JSON."""
        _turn(turn_context).invoked()

    async def on_message_update_activity(self, turn_context: TurnContext) -> None:
        """People who edit their own messages tell us nothing (PLATFORMS A7)."""

    async def on_message_delete_activity(self, turn_context: TurnContext) -> None:
        """As above."""


def _turn(context: TurnContext) -> Turn:
    turn: Turn = context.turn_state[_TURN]
    return turn


_ADAPTER = _Adapter()
_HOOKS = _Hooks()


async def read(turn: Turn) -> None:
    """Lets the hook for the turn's activity note what was said."""
    raw = turn.raw
    # Built by hand: deserialising a whole activity takes 130 µs, and loses `conversation.tenantId`.
    activity = Activity(
        type=raw.get("type"),
        name=raw.get("name"),
        action=raw.get("action"),
        value=raw.get("value"),
        channel_id=raw.get("channelId"),
    )
    context = TurnContext(_ADAPTER, activity)
    context.turn_state[_TURN] = turn
    await _ADAPTER.run_pipeline(context, _HOOKS.on_turn)
