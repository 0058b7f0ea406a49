"""The OpenAPI document: what it says is what is served, and what is served is what it says."""

import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import hypothesis
import pages
import pytest
import schemathesis
from documents import references, resolve
from hypothesis import strategies
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.contract import ids
from app.rest.app import create_app
from app.rest.errors import STATUS
from app.runtime.health import Health

ROOT = Path(__file__).parents[2]
TYPES = (ROOT / "app/dev/page/client/chat-client.d.ts").read_text()

APP = create_app(
    SimpleNamespace(settings=SimpleNamespace(max_body_bytes=262_144, metrics_port=None)), Health(None)
)
DOCUMENT = APP.ctx.openapi
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 20


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert {type(resolve(DOCUMENT, reference)) for reference in references(DOCUMENT)} == {dict}


def test_it_describes_exactly_what_is_served():
    served = {
        (method.lower(), re.sub(r"<\w+:\w+>", "{}", "/" + route.path))
        for route in APP.router.routes
        for method in route.methods
    }
    assert {(method, re.sub(r"{\w+}", "{}", path)) for method, path in OPERATIONS} == served


def test_a_name_stands_for_one_schema_in_both_documents():
    schemas, others = (document["components"]["schemas"] for document in (DOCUMENT, APP.ctx.asyncapi))
    # The other document writes discriminators in its own way.
    shared = schemas.keys() & others.keys() - {"Event"}
    assert {"Message", "EventPage", "Error"} <= shared
    assert [name for name in shared if schemas[name] != others[name]] == []


def test_the_codes_of_errors_are_the_same_closed_list_everywhere():
    found = [
        DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"],
        APP.ctx.asyncapi["components"]["schemas"]["ErrorEvent"]["properties"]["code"]["enum"],
        re.findall(r"'(\w+)'", TYPES.split("type ServiceErrorCode =")[1].split(";")[0]),
        re.findall(r"`([A-Z_]+)`", pages.page("docs/concepts.md").split("The codes:")[1].split(".")[0]),
    ]
    assert {frozenset(codes) for codes in found} == {frozenset(STATUS)}


def test_each_operation_has_words_and_an_id_of_its_own():
    operations = [DOCUMENT["paths"][path][method] for method, path in OPERATIONS]
    assert all(operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


async def test_it_is_served_to_anybody(http, cluster):
    async with http.get(cluster[0].http + "/openapi.json") as response:
        assert response.status == 200
        assert await response.json() == DOCUMENT


async def test_the_page_needs_nothing_from_outside(http, cluster):
    async with http.get(cluster[0].http + "/docs") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
        page = await response.text()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page)
    assert "/* style */" not in page
    assert "/* script */" not in page


DEAD = """
INSERT INTO webhooks (id, event, seq, user_id, state, created_at) VALUES ($1, 'user.online', 1, $2, 'dead', now())
"""


@pytest.fixture
async def world(user, master, servers):
    """A user in a direct conversation and in groups where everything has happened, and a webhook that is dead."""
    anna, ben, cleo = user("anna"), user("ben"), user("cleo")
    for user_id in (anna.user_id, ben.user_id, "sync"):
        profile = {"externalUserId": user_id, "displayName": "N. N.", "metadata": {"team": 1}}
        assert (await master.post("/api/users/sync", profile)).status == 200
    direct = await anna.direct(ben.user_id)
    groups = [await anna.group(ben.user_id, title="Lunch", metadata={"a": 1}) for _ in range(2)]
    group = f"/api/conversations/{groups[0]}"
    attachments = [{"externalFileId": "f", "label": "menu.pdf"}]
    said = [await anna.say(direct, "Hi"), await ben.say(direct, "Hello"), await ben.say(groups[0], "Hungry?")]
    for number in range(2):
        body = {"content": f"Yes {number}", "attachments": attachments, "clientMessageId": f"k{number}"}
        said.append((await anna.post(f"{group}/messages", body)).json)
    late = f"/api/messages/{said[3]['id']}"
    steps = [
        ("POST", f"{late}/reactions", {"emoji": "👍"}),
        ("POST", f"{late}/reactions", {"emoji": "🦊"}),
        ("DELETE", f"{late}/reactions/🦊", None),
        ("PATCH", late, {"content": "Very"}),
        ("DELETE", f"/api/messages/{said[4]['id']}", None),
        ("PATCH", group, {"title": None}),
        ("POST", f"{group}/participants", {"userIds": [cleo.user_id]}),
        ("DELETE", f"{group}/participants/{cleo.user_id}", None),
    ]
    for method, path, body in steps:
        assert (await anna.call(method, path, json=body)).status < 300
    webhook = ids.new_id()
    database = await asyncpg.connect(servers.database_url)
    await database.execute(DEAD, webhook, anna.user_id)
    await database.close()
    return SimpleNamespace(
        anna=anna,
        master=master,
        conversations=[direct, *groups],
        messages=[message["id"] for message in said],
        people=[anna.user_id, ben.user_id, cleo.user_id],
        webhooks=[ids.to_wire(ids.WEBHOOK, webhook)],
    )


def real_paths(world, path):
    """List the ways to fill in a path so that the call reaches something."""
    known = {
        "conversationId": world.conversations,
        "messageId": world.messages,
        "userId": world.people,
        "emoji": ["👍", "🦊"],
        "webhookId": world.webhooks,
    }
    names = re.findall(r"{(\w+)}", path)
    return [dict(zip(names, values, strict=True)) for values in product(*(known[name] for name in names))]


def credentials(world, method, path):
    security = DOCUMENT["paths"][path][method]["security"]
    known = {"userToken": world.anna.credentials, "internalSecret": world.master.credentials}
    return known[next(iter(security[0]))] if security else {}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(one) for one in OPERATIONS])
def test_every_answer_is_one_that_the_document_describes(cluster, world, method, path, mode):
    operation = SCHEMA[path][method.upper()]
    headers = credentials(world, method, path)
    known = strategies.sampled_from(real_paths(world, path))
    real = known.flatmap(lambda values: operation.as_strategy(mode, path_parameters=values))
    statuses = set()

    @hypothesis.settings(
        derandomize=True,
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=real | operation.as_strategy(mode))
    def call(case):
        answer = case.call_and_validate(cluster[0].http, headers=headers, checks=CHECKS)
        statuses.add(answer.status_code)

    try:
        call()
    except hypothesis.errors.Unsatisfiable:
        # Nothing that it takes could be wrong.
        assert mode is GenerationMode.NEGATIVE
    if mode is GenerationMode.POSITIVE:
        assert min(statuses) < 300


async def test_every_event_of_the_log_is_as_described(cluster, world):
    operation = SCHEMA["/api/conversations/{conversationId}/events"]["GET"]
    case = operation.Case(path_parameters={"conversationId": world.conversations[1]}, query={"limit": 500})
    answer = case.call_and_validate(cluster[0].http, headers=world.anna.credentials, checks=CHECKS)
    names = set(DOCUMENT["components"]["schemas"]["Event"]["discriminator"]["mapping"])
    assert {item["event"] for item in answer.json()["items"]} == names


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(one) for one in OPERATIONS])
async def test_what_wants_credentials_is_refused_without_and_nothing_else_is(http, cluster, method, path):
    async with http.request(method, cluster[0].http + re.sub(r"{\w+}", "x", path)) as response:
        assert (response.status == 401) == bool(DOCUMENT["paths"][path][method]["security"])


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_other_methods_are_405_and_name_those_that_are_served(http, cluster, path):
    served = [method.upper() for method in DOCUMENT["paths"][path]]
    async with http.request("TRACE", cluster[0].http + re.sub(r"{\w+}", "x", path)) as response:
        assert response.status == 405
        assert response.headers["Allow"].split(", ") == served
