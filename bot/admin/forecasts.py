"""Forecasts over everybody, which are worked out in the background; `POST /campaigns/{id}:forecast` begins them."""

from __future__ import annotations

from bot.admin.auth import Role
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.forecasts import FullForecastOut, full_forecast_out
from bot.admin.validation import Nothing

routes = RouteTable("forecasts")


@routes.get("/forecasts/{id}", role=Role.VIEWER, takes=Nothing, gives=FullForecastOut)
async def get(call: Call, _: Nothing) -> FullForecastOut:
    """How far a forecast over everybody is, and once it is done what it says. It is kept for an hour after its end,
    in the memory of the host: a restart forgets it."""
    return full_forecast_out(call.services.full_forecasts.find(call.id))
