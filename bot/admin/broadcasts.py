"""Broadcasts: watched, paused, resumed, stopped, reported."""

from __future__ import annotations

from aiohttp import web

from bot.admin import exports
from bot.admin.auth import Role
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.broadcasts import (
    BroadcastList,
    BroadcastOut,
    BroadcastQuery,
    ReportOut,
    broadcast_out,
    report_out,
)
from bot.admin.shapes.deliveries import (
    DeliveryFilterQuery,
    DeliveryList,
    DeliveryQuery,
    delivery_row,
)
from bot.admin.validation import Nothing
from broadcast import report
from broadcast.audience import narrowed
from broadcast.model import Broadcast
from broadcast.ports import DeliveryFilter

routes = RouteTable("broadcasts")


@routes.get("/broadcasts", role=Role.VIEWER, takes=BroadcastQuery, gives=BroadcastList)
async def find(call: Call, query: BroadcastQuery) -> BroadcastList:
    """Broadcasts, the newest launch first."""
    found = await call.services.store.broadcasts(
        statuses=query.status, kind=query.kind, campaign=query.campaign, page=query.part
    )
    return BroadcastList(
        items=[await answered(call, broadcast) for broadcast in found.items],
        page=query.page,
        per_page=query.per_page,
        total=found.total,
    )


@routes.get("/broadcasts/{id}", role=Role.VIEWER, takes=Nothing, gives=BroadcastOut)
async def get(call: Call, _: Nothing) -> BroadcastOut:
    """Status, progress and counters of one broadcast."""
    return await answered(call, await call.services.broadcasts.get(call.id))


@routes.post("/broadcasts/{id}:pause", role=Role.EDITOR, takes=Nothing, gives=BroadcastOut)
async def pause(call: Call, _: Nothing) -> BroadcastOut:
    """Nothing more goes out but what is in flight, until it is resumed."""
    return await answered(call, await call.services.broadcasts.pause(call.id))


@routes.post("/broadcasts/{id}:resume", role=Role.EDITOR, takes=Nothing, gives=BroadcastOut)
async def resume(call: Call, _: Nothing) -> BroadcastOut:
    """Goes on with what is due, inside working time."""
    return await answered(call, await call.services.broadcasts.resume(call.id))


@routes.post("/broadcasts/{id}:approve", role=Role.APPROVER, takes=Nothing, gives=BroadcastOut)
async def approve(call: Call, _: Nothing) -> BroadcastOut:
    """Lets go on what asks before it does: a start that came too late, or a canary."""
    return await answered(call, await call.services.broadcasts.approve(call.id))


@routes.post("/broadcasts/{id}:stop", role=Role.EDITOR, takes=Nothing, gives=BroadcastOut)
async def stop(call: Call, _: Nothing) -> BroadcastOut:
    """Ends it for good: what is planned is cancelled, what is in flight arrives."""
    return await answered(call, await call.services.broadcasts.stop(call.id))


@routes.get("/broadcasts/{id}/report", role=Role.VIEWER, takes=Nothing, gives=ReportOut)
async def tell(call: Call, _: Nothing) -> ReportOut:
    """What it has come to: funnel, channels, hours, rounds, buttons, reasons."""
    services = call.services
    broadcast = await services.broadcasts.get(call.id)
    made = report.report(
        broadcast,
        await services.store.tally(broadcast.id),
        reporting={account.channel: account.features for account in services.accounts.values()},
        as_of=services.clock.now(),
    )
    return report_out(made)


@routes.get("/broadcasts/{id}/deliveries", role=Role.VIEWER, takes=DeliveryQuery, gives=DeliveryList)
async def deliveries(call: Call, query: DeliveryQuery) -> DeliveryList:
    """Who got it and who did not, and why, in the order of the plan."""
    found = await call.services.store.deliveries(await _filter(call, query), query.part)
    return DeliveryList(
        items=[delivery_row(delivery, recipient) for delivery, recipient in found.items],
        page=query.page,
        per_page=query.per_page,
        total=found.total,
    )


@routes.download(
    "/broadcasts/{id}/deliveries.csv", role=Role.VIEWER, takes=DeliveryFilterQuery, produces=exports.CSV
)
async def deliveries_csv(call: Call, query: DeliveryFilterQuery) -> web.StreamResponse:
    """The same on all pages, as CSV."""
    filter = await _filter(call, query)
    return await exports.csv_of(call.request, f"{call.id}.csv", _rows(call, filter))


@routes.download(
    "/broadcasts/{id}/deliveries.xlsx", role=Role.VIEWER, takes=DeliveryFilterQuery, produces=exports.XLSX
)
async def deliveries_xlsx(call: Call, query: DeliveryFilterQuery) -> web.StreamResponse:
    """The same on all pages, as a spreadsheet."""
    filter = await _filter(call, query)
    return await exports.xlsx_of(call.request, f"{call.id}.xlsx", _rows(call, filter))


async def answered(call: Call, broadcast: Broadcast) -> BroadcastOut:
    """A broadcast with its counters and the accounts that it may use."""
    services = call.services
    channels = {key: account.channel for key, account in services.accounts.items()}
    used = [services.accounts[key] for key in narrowed(broadcast.audience, channels)]
    tally = await services.store.tally(broadcast.id)
    return broadcast_out(broadcast, tally, [(account, services.pace(account.key)) for account in used])


async def _filter(call: Call, query: DeliveryFilterQuery) -> DeliveryFilter:
    """Raises `Removed` where there is nothing to filter any more."""
    broadcast = await call.services.broadcasts.with_deliveries(call.id)
    return DeliveryFilter(broadcast.id, query.state, query.reason, query.channel, query.q)


async def _rows(call: Call, filter: DeliveryFilter) -> exports.Rows:
    """Breaks off where they began to be removed meanwhile: a part must not pass for all."""
    async for row in call.services.store.all_deliveries(filter):
        yield row
    await call.services.broadcasts.with_deliveries(filter.broadcast)
