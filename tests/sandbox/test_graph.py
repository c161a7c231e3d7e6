"""Graph: presence, users and installing for a user."""

from tests.sandbox.conftest import Bot, World

ME = "teams-00001"


async def test_presences(world: World) -> None:
    """Known ids are answered with words of Graph, unknown ones are left out."""
    ids = [world.person(ME).entra_id, "00000000-0000-0000-0000-000000000000"]
    status, body = await world.graph("POST", "/communications/getPresencesByUserId", {"ids": ids})
    assert status == 200
    assert [one["id"] for one in body["value"]] == ids[:1]
    assert body["value"][0]["availability"] in {"Available", "Away", "Busy", "DoNotDisturb", "Offline"}


async def test_pinned_presence(world: World) -> None:
    """A pinned presence holds until it is unpinned."""
    await world.call("PUT", f"/sandbox/people/{ME}/presence", {"availability": "BeRightBack"})
    ids = {"ids": [world.person(ME).entra_id]}
    _, body = await world.graph("POST", "/communications/getPresencesByUserId", ids)
    assert body["value"][0]["availability"] == "BeRightBack"
    await world.call("DELETE", f"/sandbox/people/{ME}/presence")
    assert (await world.get(f"/sandbox/people/{ME}"))["pinned"] is False


async def test_650_ids(world: World) -> None:
    """650 ids pass, 651 are refused."""
    ids = [str(number) for number in range(651)]
    assert (await world.graph("POST", "/communications/getPresencesByUserId", {"ids": ids[:650]}))[0] == 200
    status, body = await world.graph("POST", "/communications/getPresencesByUserId", {"ids": ids})
    assert (status, body["error"]["code"]) == (400, "BadRequest")


async def test_token_for_the_connector_is_refused(world: World) -> None:
    """Graph wants a token for Graph."""
    headers = {"Authorization": f"Bearer {await world.token()}"}
    status, body = await world.call("GET", "/graph/v1.0/users", headers=headers)
    assert (status, body["error"]["code"]) == (401, "InvalidAuthenticationToken")


async def test_users(world: World) -> None:
    """A user is found by object id, by UPN and by mail; an unknown one is not."""
    person = world.person(ME)
    for path in (f"/users/{person.entra_id}", f"/users/{person.email}"):
        assert (await world.graph("GET", path))[1]["mail"] == person.email
    _, body = await world.graph("GET", f"/users?$filter=mail eq '{person.email}'&$select=id,mail")
    assert body["value"] == [{"id": person.entra_id, "mail": person.email}]
    status, body = await world.graph("GET", "/users/nobody")
    assert (status, body["error"]["code"]) == (404, "Request_ResourceNotFound")


async def test_users_are_paged(world: World) -> None:
    """A list of users goes on at its next link."""
    _, body = await world.graph("GET", "/users?$top=2")
    assert len(body["value"]) == 2
    _, rest = await world.graph("GET", body["@odata.nextLink"].partition("/v1.0")[2])
    assert len(rest["value"]) == 1
    assert "@odata.nextLink" not in rest


async def test_install_for_user(world: World, bot: Bot) -> None:
    """Installing for a user tells the bot; a second time it is there already."""
    path = f"/users/{world.person(ME).entra_id}/teamwork/installedApps"
    assert (await world.graph("POST", path, {}))[0] == 201
    await world.until(lambda: len(bot.hits) == 2)
    assert bot.bodies()[1]["action"] == "add"
    assert (await world.graph("POST", path, {}))[0] == 409


async def test_throttled(world: World) -> None:
    """A throttled Graph says how long to wait."""
    await world.fault(channel="graph", kind="throttle", retry_after=9, count=1)
    headers = {"Authorization": f"Bearer {await world.token('https://graph.microsoft.com/.default')}"}
    async with world.session.get(f"{world.sandbox.url}/graph/v1.0/users", headers=headers) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "9")


async def test_case_of_ids_does_not_matter(world: World) -> None:
    """An object id is a GUID in any case."""
    ids = [world.person(ME).entra_id.upper()]
    _, body = await world.graph("POST", "/communications/getPresencesByUserId", {"ids": ids})
    assert len(body["value"]) == 1
