"""One delivery: everything that happened to it."""

from __future__ import annotations

from bot.admin.auth import Role
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.deliveries import DeliveryOut, delivery_out
from bot.admin.validation import Nothing
from broadcast.errors import NotFound
from broadcast.model import Recipient

routes = RouteTable("deliveries")


@routes.get("/deliveries/{id}", role=Role.VIEWER, takes=Nothing, gives=DeliveryOut)
async def get(call: Call, _: Nothing) -> DeliveryOut:
    """A delivery with its timeline: every attempt and event, in time order."""
    store = call.services.store
    delivery = await store.delivery(call.id)
    if delivery is None:
        raise NotFound(f"there is no delivery {call.id}")
    recipient = await store.recipient(delivery.recipient) or Recipient(delivery.recipient)
    return delivery_out(delivery, recipient, await store.timeline(delivery.id))
