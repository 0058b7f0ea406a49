"""The worker as a process: its health, its end, and what it stands."""

import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from clients import Master, Rest, somebody, token
from pods import Pod, Worker, environment, until
from receiver import WEBHOOK_SECRET

from app.config.types import Url
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.postgres import migrate


async def status(http, url):
    async with http.get(url) as answer:
        return answer.status


async def test_its_health_is_served(stack, http):
    async with stack() as found:
        (worker,) = found.workers
        assert await status(http, worker.http + "/health/live") == 200
        assert await status(http, worker.http + "/health/ready") == 200
        assert await status(http, worker.http + "/api/admin/stats") == 404


async def test_what_is_under_way_is_finished_at_the_end_and_the_rest_is_given_back(stack, http):
    async with stack(workers=0, DRAIN_TIMEOUT="20s") as found:
        anna = found.user("anna")
        room = await anna.group()
        for number in range(5):
            await anna.say(room, str(number))
        release = asyncio.Event()

        async def slowly(one):
            if one.data.get("content") == "0":
                await release.wait()
            return 200

        found.receiver.behaviour = slowly
        worker = await found.start_worker()
        await found.receiver.wait("the first message", lambda: found.receiver.contents == ["0"])
        worker.signal(signal.SIGTERM)

        async def is_draining():
            # It is not ready either where PostgreSQL takes too long to answer.
            is_finishing = "finishing what is under way" in worker.log.read_text()
            return is_finishing and await status(http, worker.http + "/health/ready") == 503

        await until(is_draining, "not ready")
        release.set()
        assert await worker.exit_code() == 0
        assert found.receiver.contents == ["0"]
        held = await found.database.fetch(
            "SELECT state, lease FROM webhooks WHERE event = 'message.created' ORDER BY seq"
        )
        assert [row["state"] for row in held] == ["delivered", *["new"] * 4]
        assert [row["lease"] for row in held] == [None] * 5
        # No lease has to end first.
        await found.start_worker()
        await found.receiver.wait("the rest", lambda: found.receiver.contents == list("01234"))
        assert worker.errors() == []


async def test_an_idle_worker_ends_at_once(stack):
    async with stack() as found:
        found.workers[0].signal(signal.SIGTERM)
        assert await found.workers[0].exit_code() == 0


async def run(env, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *arguments,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, out.decode()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"WEBHOOK_URL": ""}, "WEBHOOK_URL"),
        ({"WEBHOOK_URL": "ftp://example.com"}, "WEBHOOK_URL"),
        ({"WEBHOOK_URL": "https:///no-host"}, "WEBHOOK_URL"),
        ({"WEBHOOK_URL": "https://no..host/"}, "WEBHOOK_URL"),
        ({"WEBHOOK_SECRET": ""}, "WEBHOOK_SECRET"),
        ({"WEBHOOK_RETRY_SCHEDULE": "5s,soon"}, "WEBHOOK_RETRY_SCHEDULE"),
        ({"WEBHOOK_TIMEOUT": "0"}, "WEBHOOK_TIMEOUT"),
        ({"WEBHOOK_RETENTION_DAYS": "0"}, "WEBHOOK_RETENTION_DAYS"),
        ({"WORKER_PORT": "70000"}, "WORKER_PORT"),
    ],
)
async def test_a_bad_setting_ends_it_with_its_name(changed, named):
    env = environment("postgresql://localhost/none", "redis://localhost/0")
    webhooks = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": WEBHOOK_SECRET}
    code, said = await run({**env, **webhooks, **changed}, "worker")
    assert code == 2
    assert f"{named}: " in said
    assert "Traceback" not in said


async def test_a_port_in_use_ends_it_with_its_name(own_servers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = own_servers.environment(
            WEBHOOK_URL="http://127.0.0.1:9/", WEBHOOK_SECRET=WEBHOOK_SECRET, WORKER_PORT=str(port)
        )
        code, said = await run(env, "worker")
    assert code == 1
    assert "WORKER_PORT" in said
    assert "Traceback" not in said


async def test_pods_warn_when_webhooks_are_due_and_no_worker_was_seen(stack):
    async with stack(workers=0) as found:
        await found.user().group()
        # As if a minute had gone by.
        await found.database.execute("UPDATE webhooks SET due_at = now() - interval '61 seconds'")
        logs = [pod.log for pod in found.pods]
        before = [len(log.read_text()) for log in logs]

        def said(text):
            return all(text in log.read_text()[start:] for log, start in zip(logs, before, strict=True))

        async def is_missed():
            return said("no worker was seen for 60 s")

        await until(is_missed, "a warning of each pod", 90)
        await found.start_worker()

        async def is_back():
            return said("webhooks are delivered again")

        await until(is_back, "the end of it", 30)


@asynccontextmanager
async def breakable(folder, master):
    """Run a pod and a worker on databases of their own."""
    async with AsyncExitStack() as stack:
        postgres, valkey = start_postgres(folder), start_valkey(folder)
        stack.callback(postgres.stop)
        servers = {"valkey": valkey}
        stack.callback(lambda: servers["valkey"].stop())  # noqa: PLW0108 - it may be another by then
        webhooks = {"WEBHOOK_URL": master.url, "WEBHOOK_SECRET": WEBHOOK_SECRET}
        env = environment(postgres.url, valkey.url, **webhooks, WEBHOOK_RETRY_SCHEDULE="500ms")
        pod, worker = Pod(env, folder / "pod.log"), Worker(env, folder / "worker.log")
        stack.push_async_callback(pod.kill)
        stack.push_async_callback(worker.kill)
        yield postgres, servers, pod, worker


async def test_it_waits_for_the_databases_and_goes_on_when_they_come_back(folder, master, http):
    async with breakable(folder, master) as (postgres, servers, pod, worker):
        # Before anybody has applied the migrations.
        await worker.start(ready=False)
        assert await status(http, worker.http + "/health/ready") == 503
        await migrate.migrate(Url(postgres.url))

        async def is_ready():
            return await status(http, worker.http + "/health/ready") == 200

        await until(is_ready, "ready")
        await pod.start()
        user_id = somebody("anna")
        anna = Rest(http, pod.http, user_id, token(user_id))
        room = await anna.group()
        await master.wait_for("conversation.created")

        await asyncio.to_thread(servers["valkey"].stop)
        await anna.say(room, "without Redis")
        await master.wait_for("message.created", 1)
        servers["valkey"] = await asyncio.to_thread(start_valkey, folder)

        # PostgreSQL goes while an attempt is under way: what came of it is written when it is back.
        release = asyncio.Event()

        async def slowly(_):
            await release.wait()
            return 200

        master.behaviour = slowly
        await anna.say(room, "without PostgreSQL")
        await master.wait_for("message.created", 2)
        await asyncio.to_thread(postgres.stop)
        release.set()
        await until(lambda: not_ready(http, worker), "not ready")
        await asyncio.sleep(5)
        back = await asyncio.to_thread(start_postgres, folder)
        try:
            await until(is_ready, "ready again", 30)
            await until(lambda: can_say(anna, room), "the pod is back", 30)
            await master.wait("what was said then", lambda: master.contents[-1] == "and again")
            master_view = Master(http, pod.http, "", "")

            async def is_all_delivered():
                return (await master_view.get("/api/admin/webhooks?status=pending")).json == {"items": []}

            await until(is_all_delivered, "all delivered")
            delivered = await master_view.get("/api/admin/webhooks?status=delivered")
            assert {item["attempts"] for item in delivered.json["items"]} == {1}
            assert master.contents == ["without Redis", "without PostgreSQL", "and again"]
            assert worker.errors() == []
        finally:
            back.stop()


async def not_ready(http, worker):
    return await status(http, worker.http + "/health/ready") == 503


async def can_say(anna, room):
    answer = await anna.post(
        f"/api/conversations/{room}/messages", {"content": "and again", "clientMessageId": "1"}
    )
    return answer.status in {200, 201}
