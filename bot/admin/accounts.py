"""Accounts: which there are, and how they stand with their platforms."""

from __future__ import annotations

from bot.admin.auth import Role
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.accounts import AccountList, account_out
from bot.admin.shapes.common import Paged

routes = RouteTable("accounts")


@routes.get("/accounts", role=Role.VIEWER, takes=Paged, gives=AccountList)
async def find(call: Call, query: Paged) -> AccountList:
    """The accounts of the settings, and what to do where one is not connected."""
    services = call.services
    accounts = sorted(services.accounts.values(), key=lambda account: account.key)
    shown = accounts[query.part.offset : query.part.offset + query.per_page]
    return AccountList(
        items=[account_out(one, services.connection(one.key), services.pace(one.key)) for one in shown],
        page=query.page,
        per_page=query.per_page,
        total=len(accounts),
    )
