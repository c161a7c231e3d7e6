"""Campaigns: written, checked, tried, launched."""

from __future__ import annotations

from collections.abc import Iterable

from bot.admin.auth import Role
from bot.admin.broadcasts import answered as broadcast_answered
from bot.admin.routing import Call, RouteTable
from bot.admin.shapes.broadcasts import BroadcastOut
from bot.admin.shapes.campaigns import (
    CampaignBody,
    CampaignList,
    CampaignOut,
    CampaignPatch,
    CampaignQuery,
    FaultsOut,
    LaunchBody,
    TryBody,
    campaign_out,
    draft_of,
    merged,
    new_draft,
    overrides,
)
from bot.admin.shapes.common import faults_out
from bot.admin.shapes.forecasts import (
    ForecastBody,
    ForecastOut,
    FullForecastOut,
    forecast_out,
    full_forecast_out,
    start_of,
)
from bot.admin.validation import Nothing
from broadcast.model import Audience, Campaign

routes = RouteTable("campaigns")


@routes.post("/campaigns", role=Role.EDITOR, takes=CampaignBody, gives=CampaignOut, status=201)
async def create(call: Call, body: CampaignBody) -> CampaignOut:
    """A new draft. Only `name` and `message` are required."""
    draft = new_draft(body, schedule=call.services.schedule, policies=call.services.policies)
    return await _answered(call, await call.services.campaigns.create(draft))


@routes.get("/campaigns", role=Role.VIEWER, takes=CampaignQuery, gives=CampaignList)
async def find(call: Call, query: CampaignQuery) -> CampaignList:
    """Campaigns, the newest first."""
    found = await call.services.store.campaigns(
        status=query.status, q=query.q, channel=query.channel, page=query.part
    )
    estimates = await _estimates(call, found.items)
    return CampaignList(
        items=[campaign_out(campaign, estimate=estimates[campaign.audience]) for campaign in found.items],
        page=query.page,
        per_page=query.per_page,
        total=found.total,
    )


@routes.get("/campaigns/{id}", role=Role.VIEWER, takes=Nothing, gives=CampaignOut)
async def get(call: Call, _: Nothing) -> CampaignOut:
    """One campaign."""
    return await _answered(call, await call.services.campaigns.get(call.id))


@routes.patch("/campaigns/{id}", role=Role.EDITOR, takes=CampaignPatch, gives=CampaignOut)
async def edit(call: Call, patch: CampaignPatch) -> CampaignOut:
    """Changes what is given, while the campaign is a draft."""
    campaign = await call.services.campaigns.get(call.id)
    return await _answered(call, await call.services.campaigns.edit(call.id, merged(patch, draft_of(campaign))))


@routes.post("/campaigns/{id}:launch", role=Role.EDITOR, takes=LaunchBody, gives=BroadcastOut, status=201)
async def launch(call: Call, body: LaunchBody) -> BroadcastOut:
    """One more broadcast of the campaign; what is given holds for this broadcast only."""
    broadcast = await call.services.campaigns.launch(call.id, by=call.by.id, overrides=overrides(body))
    return await broadcast_answered(call, broadcast)


@routes.post("/campaigns/{id}:end_repeat", role=Role.EDITOR, takes=Nothing, gives=CampaignOut)
async def end_repeat(call: Call, _: Nothing) -> CampaignOut:
    """The campaign launches no more by itself; what was launched goes on."""
    return await _answered(call, await call.services.campaigns.end_repeat(call.id))


@routes.post("/campaigns/{id}:try", role=Role.EDITOR, takes=TryBody, gives=BroadcastOut, status=201)
async def try_out(call: Call, body: TryBody) -> BroadcastOut:
    """Sends the real message to one person at once."""
    recipient = await call.services.campaigns.find_recipient(body.to)
    broadcast = await call.services.campaigns.try_out(call.id, to=recipient, by=call.by.id)
    return await broadcast_answered(call, broadcast)


@routes.post_or_accept(
    "/campaigns/{id}:forecast", role=Role.VIEWER, takes=ForecastBody, gives=ForecastOut, accepts=FullForecastOut
)
async def foretell(call: Call, body: ForecastBody) -> ForecastOut | FullForecastOut:
    """What a launch now would come to. Takes a while: a few seconds for a thousand people, a minute for many. With
    `full` it is worked out over everybody in the background: `GET /forecasts/{id}` tells how far it is."""
    services, start = call.services, start_of(body)
    campaign = await services.campaigns.get(call.id)
    if body.full:
        return full_forecast_out(await services.full_forecasts.begin(campaign, start=start, seeds=body.seeds))
    return forecast_out(await services.foretell(campaign, start=start, seeds=body.seeds))


@routes.post("/campaigns/{id}:validate", role=Role.VIEWER, takes=Nothing, gives=FaultsOut)
async def validate(call: Call, _: Nothing) -> FaultsOut:
    """What stands in the way of a launch now."""
    campaign = await call.services.campaigns.get(call.id)
    return FaultsOut(faults=faults_out(await call.services.campaigns.launch_faults(campaign)))


async def _answered(call: Call, campaign: Campaign) -> CampaignOut:
    return campaign_out(campaign, estimate=await call.services.campaigns.estimate(campaign.audience))


async def _estimates(call: Call, campaigns: Iterable[Campaign]) -> dict[Audience, int]:
    """Each audience of a page is counted once: most campaigns go to a few lists, or to everybody."""
    audiences = {campaign.audience for campaign in campaigns}
    return {audience: await call.services.campaigns.estimate(audience) for audience in audiences}
