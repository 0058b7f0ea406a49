"""What a server tells Prometheus: that it moves with what happens, and says nothing of anybody."""

import re

import pages
import pytest
from clients import ear
from pods import free_port, pods, until
from scraping import read, scrape, series

from app.observability import metrics

PAGE = pages.page("docs/observability.md")


def grown(before, after, *series):
    return after[series] - before.get(series, 0)


@pytest.fixture
def talk(user, cluster, http):
    """Have two people talk, each on a pod of their own; gives what both pods told before and after."""

    async def run():
        anna, ben = user("anna"), user("ben", cluster[1])
        before = [await series(http, pod.http) for pod in cluster]
        conversation = await anna.direct(ben.user_id)
        async with ear(cluster[0], anna.user_id) as here, ear(cluster[1], ben.user_id) as there:
            message = {"conversationId": conversation, "content": "Hi"}
            said = await here.call("message:send", message)
            assert said["ok"]
            assert not (await here.call("message:send", {**message, "content": ""}))["ok"]
            assert not (await here.call("no:such:event", {}))["ok"]
            await anna.say(conversation, "Hello")
            for one in (here, there):
                await one.wait_for("message:new", 2)
            assert (await ben.get(f"/api/messages/{said['message']['id']}/nothing")).status == 404
            assert (await ben.get(f"/api/conversations/{conversation}/messages")).status == 200
            texts = [await scrape(http, pod.http) for pod in cluster]
        return before, texts, (anna.user_id, ben.user_id, conversation, said["message"]["id"])

    return run


async def test_what_happens_is_counted(talk):
    (before, elsewhere_before), (text, elsewhere_text), _ = await talk()
    after, elsewhere = read(text), read(elsewhere_text)
    route = "/api/conversations/{conversation_id}/messages"
    assert grown(before, after, "chat_http_requests_total", "POST", route, "201") == 1
    assert grown(before, after, "chat_http_request_seconds_count", route) == 1
    assert grown(elsewhere_before, elsewhere, "chat_http_requests_total", "GET", route, "200") == 1
    assert grown(elsewhere_before, elsewhere, "chat_http_requests_total", "GET", "unknown", "404") == 1
    for event, outcome in (
        ("connect", "ok"),
        ("message:send", "ok"),
        ("message:send", "VALIDATION_ERROR"),
        ("unknown", "VALIDATION_ERROR"),
    ):
        assert grown(before, after, "chat_socket_events_total", event, outcome) == 1
    assert grown(before, after, "chat_send_group_size_sum") == 2
    assert after["chat_sockets",] >= 1
    assert after["chat_database_up",] == after["chat_redis_up",] == 1


async def test_a_delivery_is_measured_on_the_pod_where_it_is_made(talk):
    pods_before, texts, _ = await talk()
    for before, text in zip(pods_before, texts, strict=True):
        after = read(text)
        assert grown(before, after, "chat_deliveries_total", "message:new") == 2
        assert grown(before, after, "chat_delivery_seconds_count") == 2


async def test_who_comes_online_is_counted_on_the_pod_that_tells_it(cluster, http, user):
    async def changes():
        found = [await series(http, pod.http) for pod in cluster]
        return sum(one.get(("chat_presence_changes_total", "online"), 0) for one in found)

    before = await changes()

    async def has_grown():
        return await changes() > before

    async with ear(cluster[0], user().user_id):
        await until(has_grown, "somebody is online")


async def test_nothing_says_who_talks_or_where(talk):
    _, texts, known = await talk()
    assert [word for word in known for text in texts if word in text] == []


async def test_what_is_too_much_is_counted(servers, tmp_path, http, user):
    env = servers.environment(RATE_LIMIT_READ="1/m,1")
    async with pods(env, tmp_path, 1) as (pod,):
        anna = user("anna", pod)
        statuses = [(await anna.get("/api/conversations")).status for _ in range(2)]
        after = await series(http, pod.http)
    assert statuses == [200, 429]
    assert after["chat_rate_limited_total", "read"] == 1


async def test_a_pod_hears_itself_through_redis(cluster, http):
    async def came_back():
        return (await series(http, cluster[0].http))["chat_canary_seconds_count",] > 0

    await until(came_back, "a canary")


async def test_they_have_a_port_of_their_own_where_one_is_set(servers, tmp_path, http):
    port = free_port()
    async with pods(servers.environment(METRICS_PORT=f"{port}"), tmp_path, 1) as (pod,):
        own = f"http://127.0.0.1:{port}"
        assert "chat_http_requests_total" in await scrape(http, own)
        async with http.get(f"{pod.http}/metrics") as answer:
            assert answer.status == 404
        async with http.get(f"{pod.http}/openapi.json") as answer:
            assert "/metrics" not in (await answer.json())["paths"]
        async with http.get(f"{own}/health/ready") as answer:
            assert answer.status == 404


def test_the_documentation_lists_them_all():
    rows = re.findall(r"^\| `(chat_\w+)(?:\{([\w,]+)\})?` \| (\w+) \| (\w+) \|", PAGE, re.MULTILINE)
    known = {metrics.SERVER: "server", metrics.WORKER: "worker"}
    expected = {}
    for registry, process in known.items():
        for family in registry.collect():
            if family.name.startswith("chat_"):
                name = family.name + ("_total" if family.type == "counter" else "")
                expected[name] = (family.type, "both" if name in expected else process)
    assert {name: (kind, process) for name, _, kind, process in rows} == expected


def test_the_documentation_names_the_labels():
    rows = re.findall(r"^\| `(chat_\w+)(?:\{([\w,]+)\})?` \|", PAGE, re.MULTILINE)
    found = {
        metric._name + ("_total" if metric._type == "counter" else ""): ",".join(metric._labelnames)
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
    }
    assert dict(rows) == found
