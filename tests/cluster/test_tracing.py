"""One trace from a send to the master's webhook handler, over two pods and the worker; none where it is off."""

import asyncio
import json
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from types import SimpleNamespace

import asyncpg
import pytest
from clients import Master, Rest, ear, somebody, token
from otlp import collecting
from pods import Pod, Worker, free_port
from receiver import WEBHOOK_SECRET, receiver

SECRETIVE = "Nobody but us reads this"


@pytest.fixture
def traced(alone, http, tmp_path):
    """Run two pods and a worker that send their traces to a receiver, each under a name of its own.

    In a Redis of their own: a pod without an address for webhooks may not decide who came and went.
    """

    async def start(stack, **more):
        collector = await stack.enter_async_context(collecting())
        master = await stack.enter_async_context(receiver())
        env = alone.environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="100",
            WEBHOOK_URL=master.url,
            WEBHOOK_SECRET=WEBHOOK_SECRET,
            **more,
        )
        processes = [
            Pod({**env, "OTEL_SERVICE_NAME": "one"}, tmp_path / "one.log"),
            Pod({**env, "OTEL_SERVICE_NAME": "two"}, tmp_path / "two.log"),
            Worker({**env, "OTEL_SERVICE_NAME": "worker"}, tmp_path / "worker.log"),
        ]
        for process in processes:
            stack.push_async_callback(process.kill)
        await asyncio.gather(*(process.start() for process in processes))
        anna, ben = (somebody(name) for name in ("anna", "ben"))
        one, two, worker = processes
        return SimpleNamespace(
            collector=collector,
            master=master,
            one=one,
            two=two,
            worker=worker,
            anna=Rest(http, one.http, anna, token(anna)),
            ben=Rest(http, two.http, ben, token(ben)),
        )

    return start


def incoming(*, sampled=True):
    """Make up the place in a trace from which the master calls; gives it and the id of the trace."""
    trace_id = secrets.token_hex(16)
    return f"00-{trace_id}-{secrets.token_hex(8)}-0{int(sampled)}", trace_id


async def test_one_trace_leads_from_the_masters_call_to_its_webhook_handler(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        conversation = await found.anna.direct(found.ben.user_id)
        place, trace_id = incoming()
        async with ear(found.two, found.ben.user_id) as ben:
            path = f"/api/conversations/{conversation}/messages"
            answer = await found.anna.post(path, {"content": SECRETIVE}, headers={"traceparent": place})
            assert answer.status == 201
            await ben.wait_for("message:new")
        await found.master.wait_for("message.created")
        expected = {
            ("one", "POST /api/conversations/{conversation_id}/messages"),
            ("one", "INSERT messages"),
            ("one", "announce"),
            ("two", "deliver"),
            ("worker", "POST"),
        }

        def is_whole():
            return {(span.process, span.name) for span in found.collector.trace(trace_id)} >= expected

        await found.collector.wait("the whole trace", is_whole)
        spans = {span.name: span for span in found.collector.trace(trace_id)}
        (told,) = found.master.about("message.created")
        _, told_trace, told_parent, flags = told.headers["traceparent"].split("-")
        call, written, announced = (
            spans["POST /api/conversations/{conversation_id}/messages"],
            spans["INSERT messages"],
            spans["announce"],
        )
        assert call.parent_id == place.split("-")[2]
        assert call.attributes["http.route"] == "/api/conversations/{conversation_id}/messages"
        assert call.attributes["http.response.status_code"] == 201
        assert written.parent_id == announced.parent_id == call.span_id
        assert spans["deliver"].parent_id == announced.span_id
        assert spans["POST"].parent_id == call.span_id
        assert (told_trace, told_parent, flags) == (trace_id, spans["POST"].span_id, "01")
        said = [SECRETIVE, found.anna.user_id, found.ben.user_id, found.anna.token, conversation]
        assert [word for word in said if word.encode() in found.collector.raw] == []


async def test_every_change_that_the_master_is_told_of_carries_its_trace(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        traces = {}

        async def change(event, method, path, body=None):
            place, traces[event] = incoming()
            answer = await found.anna.call(method, path, json=body, headers={"traceparent": place})
            assert answer.status < 300
            return answer.json

        participants = {"type": "direct", "participantIds": [found.ben.user_id]}
        conversation = (await change("conversation.created", "POST", "/api/conversations", participants))["id"]
        said = await change(
            "message.created", "POST", f"/api/conversations/{conversation}/messages", {"content": "Hi"}
        )
        message = f"/api/messages/{said['id']}"
        await change("reaction.added", "POST", f"{message}/reactions", {"emoji": "👍"})
        await change("message.deleted", "DELETE", message)
        for event, trace_id in traces.items():
            (told,) = await found.master.wait_for(event)
            assert told.headers["traceparent"].split("-")[1] == trace_id


async def test_what_a_socket_sends_is_traced_to_the_webhook(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        conversation = await found.anna.direct(found.ben.user_id)
        place, connect_id = incoming()
        auth = {"token": found.anna.token, "traceparent": place}
        async with ear(found.one, found.anna.user_id, auth=auth) as anna:
            said = await anna.call("message:send", {"conversationId": conversation, "content": "Hi"})
            assert said["ok"]
        (told,) = await found.master.wait_for("message.created")
        trace_id = told.headers["traceparent"].split("-")[1]

        def is_whole():
            known = {span.name for span in found.collector.trace(trace_id)}
            return known >= {"message:send", "INSERT messages", "POST"} and bool(found.collector.trace(connect_id))

        await found.collector.wait("both traces", is_whole)
        (root,) = [span for span in found.collector.trace(trace_id) if not span.parent_id]
        assert root.name == "message:send"
        names = {span.name for span in found.collector.trace(connect_id)}
        assert names >= {"connect", "EVALSHA"}


async def test_who_comes_online_carries_the_trace_of_the_handshake_to_the_master(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        found.master.hears_presence = True
        place, trace_id = incoming()

        async def told(event):
            def of_anna():
                return [one for one in found.master.about(event) if one.data["userId"] == found.anna.user_id]

            await found.master.wait(event, of_anna)
            return of_anna()[0]

        async with ear(found.one, found.anna.user_id, auth={"token": found.anna.token, "traceparent": place}):
            came = await told("user.online")
        _, told_trace, told_parent, _ = came.headers["traceparent"].split("-")
        await found.collector.wait(
            "both ends", lambda: {span.name for span in found.collector.trace(trace_id)} >= {"connect", "POST"}
        )
        spans = {span.name: span for span in found.collector.trace(trace_id)}
        assert (told_trace, told_parent) == (trace_id, spans["POST"].span_id)
        assert spans["POST"].parent_id == spans["connect"].span_id
        went = await told("user.offline")
        assert went.headers["traceparent"].split("-")[1] != trace_id


async def test_what_the_caller_does_not_record_is_not_recorded_but_goes_on(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        conversation = await found.anna.direct(found.ben.user_id)
        path = f"/api/conversations/{conversation}/messages"
        silent, silent_id = incoming(sampled=False)
        heard, heard_id = incoming()
        for place in (silent, heard):
            answer = await found.anna.post(path, {"content": "Hi"}, headers={"traceparent": place})
            assert answer.status == 201
        first, _ = await found.master.wait_for("message.created", 2)
        assert first.headers["traceparent"].split("-")[1::2] == [silent_id, "00"]
        await found.collector.wait(
            "the second", lambda: any(s.name == "POST" for s in found.collector.trace(heard_id))
        )
        assert found.collector.trace(silent_id) == []


async def test_sends_of_one_batch_are_linked_and_the_sampler_is_heard(traced):
    async with AsyncExitStack() as stack:
        found = await traced(stack, OTEL_TRACES_SAMPLER="parentbased_always_off")
        conversations = [await found.anna.group(title=f"{number}") for number in range(20)]
        places = [incoming() for _ in conversations]
        calls = [
            found.anna.post(
                f"/api/conversations/{one}/messages", {"content": "Hi"}, headers={"traceparent": place}
            )
            for one, (place, _) in zip(conversations, places, strict=True)
        ]
        assert {answer.status for answer in await asyncio.gather(*calls)} == {201}
        known = {trace_id for _, trace_id in places}

        def all_written():
            batches = [span for span in found.collector.spans if span.name == "INSERT messages"]
            return {trace_id for span in batches for trace_id in (span.trace_id, *span.links)} == known

        await found.collector.wait("every send in a batch", all_written)
        batches = [span for span in found.collector.spans if span.name == "INSERT messages"]
        assert all(span.attributes["db.operation.batch.size"] == 1 + len(span.links) for span in batches)
        # The worker may still deliver what a test before this one led to, and go on with its trace.
        assert {span.trace_id for span in found.collector.spans if span.process != "worker"} == known


async def test_what_fails_unexpectedly_is_logged_once_with_its_trace(traced, servers, http):
    async with AsyncExitStack() as stack:
        found = await traced(stack)
        master = Master(http, found.one.http, "", "")
        user_id = somebody()
        profile = {"externalUserId": user_id, "displayName": "N. N."}
        assert (await master.post("/api/users/sync", profile)).status == 200
        database = await asyncpg.connect(servers.database_url)
        # A year that Python does not know.
        await database.execute("UPDATE users SET created_at = '20000-01-01' WHERE id = $1", user_id)
        await database.close()
        place, trace_id = incoming()
        answer = await master.get(f"/api/users/{user_id}", headers={"traceparent": place})
        assert answer.status == 500
        (line,) = [json.loads(line) for line in found.one.errors()]
        assert line["trace_id"] == trace_id
        await found.collector.wait("the call", lambda: len(found.collector.trace(trace_id)) > 1)
        (call,) = [span for span in found.collector.trace(trace_id) if span.parent_id == place.split("-")[2]]
        assert call.is_failure


async def test_a_collector_that_is_away_holds_up_nothing(servers, http, tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    pod = Pod(servers.environment(OTEL_EXPORTER_OTLP_ENDPOINT=nobody), tmp_path / "pod.log")
    await pod.start()
    try:
        user_id = somebody()
        anna = Rest(http, pod.http, user_id, token(user_id))
        assert (await anna.get("/api/conversations")).status == 200
        pod.signal(signal.SIGTERM)
        # The exporter would go on for ten seconds.
        async with asyncio.timeout(8):
            assert await pod.exit_code() == 0
    finally:
        await pod.kill()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
async def test_what_cannot_be_had_is_named_at_start(servers, name, value):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "serve"),
        env=servers.environment(**{name: value}),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert f"{name}: must be " in said.decode()


async def test_where_it_is_off_neither_tracer_nor_exporter_is_imported():
    # Libraries of ours import requests, and OpenTelemetry's API and metrics, wherever they are installed.
    names = "{'app.observability.otel', 'opentelemetry.sdk.trace', 'opentelemetry.exporter'}"
    script = f"import sys, app.__main__, app.process.server; print({names} & sys.modules.keys())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert said.decode().strip() == "set()"
