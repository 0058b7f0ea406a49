"""What the application answers by itself: in this process, and without a port."""

import pytest
from clients import token
from pods import INTERNAL_SECRET, ORIGIN
from sanic_testing.testing import SanicASGITestClient

from app.config.settings import Settings
from app.postgres import database
from app.process import wiring
from app.runtime.supervisor import supervised

NOBODY_HAS = "0" * 32
NO_TOKEN = {"Authorization": "Bearer no.token.at-all"}


@pytest.fixture(scope="module")
async def client(servers):
    """Give a client of an application that listens nowhere."""
    settings = Settings.read(servers.environment())
    async with database.opened(settings.database_url), supervised() as supervisor:
        pod = wiring.build(settings, supervisor)
        await pod.database.first_look()
        yield SanicASGITestClient(pod.rest.app)


def bearer(**claims):
    return {"Authorization": f"Bearer {token('anna', **claims)}"}


async def answer(client, method, path, **more):
    _, response = await client.request(method, path, **more)
    return response


async def test_it_lives_and_is_ready_until_it_drains(client):
    assert (await answer(client, "GET", "/health/live")).status == 200
    assert (await answer(client, "GET", "/health/ready")).status == 200
    client.sanic_app.ctx.health.draining = True
    assert (await answer(client, "GET", "/health/live")).status == 200
    assert (await answer(client, "GET", "/health/ready")).status == 503
    client.sanic_app.ctx.health.draining = False


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json", "/docs", "/metrics"])
async def test_what_needs_no_database_is_there(client, path):
    response = await answer(client, "GET", path)
    assert response.status == 200
    assert response.body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("PUT", "/api/conversations", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/conversations", 401, "UNAUTHORIZED"),
        ("GET", "/api/admin/stats", 401, "UNAUTHORIZED"),
        ("POST", "/api/users/sync", 401, "UNAUTHORIZED"),
    ],
)
async def test_every_refusal_has_the_one_shape(client, method, path, status, code):
    response = await answer(client, method, path)
    assert response.status == status
    assert response.json.keys() == {"code", "message"}
    assert response.json["code"] == code
    assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"iss": "somebody-else"},
        {"sub": None, "externalUserId": None},
        {"externalUserId": ""},
        {"externalUserId": 7},
        {"secret": "another-secret-that-nobody-gave-to-this-service"},
    ],
)
async def test_a_token_that_does_not_hold_is_refused_without_saying_why(client, claims):
    response = await answer(client, "GET", "/api/conversations", headers=bearer(**claims))
    assert response.status == 401
    assert response.json["code"] == "UNAUTHORIZED"
    # Whatever is wrong with it.
    assert response.json == (await answer(client, "GET", "/api/conversations", headers=NO_TOKEN)).json


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/conversations", {"type": "group", "participantIds": []}),
        ("PATCH", f"/api/messages/msg_{NOBODY_HAS}", {"content": "Hello"}),
        ("DELETE", f"/api/messages/msg_{NOBODY_HAS}", {}),
    ],
)
async def test_what_changes_wants_the_permission_to_write(client, method, path, body):
    response = await answer(client, method, path, headers=bearer(permissions=["chat:read"]), json=body)
    assert (response.status, response.json["code"]) == (403, "FORBIDDEN")


async def test_a_token_beside_the_secret_is_refused(client):
    headers = {**bearer(), "X-Internal-Secret": INTERNAL_SECRET}
    assert (await answer(client, "GET", "/api/users/anna", headers=headers)).status == 401


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://evil.example.com", None)])
async def test_a_preflight_is_for_origins_that_are_listed(client, origin, allowed):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = await answer(client, "OPTIONS", "/api/conversations", headers=asked)
    assert response.status == 204
    assert response.headers.get("Access-Control-Allow-Origin") == allowed
    assert response.headers["Vary"] == "Origin"
