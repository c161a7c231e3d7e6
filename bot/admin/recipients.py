"""Recipients: taken in from files, looked up."""

from __future__ import annotations

from aiohttp import web

from bot import importing
from bot.admin.auth import Role
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.recipients import (
    ErasedOut,
    ImportOut,
    RecipientDetail,
    RecipientList,
    RecipientQuery,
    import_out,
    recipient_detail,
    recipient_out,
)
from bot.admin.validation import Nothing

routes = RouteTable("recipients")


@routes.post("/recipients:import", role=Role.EDITOR, takes=Nothing, gives=ImportOut, upload=True)
async def take_in(call: Call, _: Nothing) -> ImportOut:
    """Imports CSV, XLSX or JSON lines: the body, or a file of a form. Faulty rows are listed, the others taken."""
    body = call.body
    format = importing.format_of(body.content_type, body.filename) if body else None
    if body is None or format is None:
        known = ", ".join(importing.CONTENT_TYPES)
        raise web.HTTPUnsupportedMediaType(text=f"say what is sent with the header Content-Type: one of {known}")
    rows = importing.streamed(importing.rows(body.file, format))
    return import_out(await call.services.recipients.take(rows))


@routes.get("/recipients", role=Role.VIEWER, takes=RecipientQuery, gives=RecipientList)
async def find(call: Call, query: RecipientQuery) -> RecipientList:
    """Those whose name, e-mail or external id contains `q`, in order of id."""
    found = await call.services.recipients.find(query.q, query.part)
    return RecipientList(
        items=[recipient_out(recipient) for recipient in found.items],
        page=query.page,
        per_page=query.per_page,
        total=found.total,
    )


@routes.get("/recipients/{id}", role=Role.VIEWER, takes=Nothing, gives=RecipientDetail)
async def get(call: Call, _: Nothing) -> RecipientDetail:
    """One person, with where they can be reached."""
    recipient = await call.services.recipients.get(call.id)
    return recipient_detail(recipient, await call.services.recipients.conversations(recipient.id))


@routes.post("/recipients/{id}:erase", role=Role.ADMIN, takes=Nothing, gives=ErasedOut)
async def erase(call: Call, _: Nothing) -> ErasedOut:
    """Removes a person for good: record, channel ids and conversations. What was counted stays counted."""
    return ErasedOut(id=call.id, erased_at=await call.services.recipients.erase(call.id))
