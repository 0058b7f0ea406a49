"""What must hold when something breaks: two pods of their own, and databases that the tests may stop."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import redis.asyncio
from clients import Rest, ear, somebody, token
from databases import empty_database
from leak import leaking
from pods import Pod, Worker, environment, pods, until
from receiver import WEBHOOK_SECRET, receiver
from scraping import series

from app.config.types import Url
from app.contract import ids
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.postgres import migrate


@asynccontextmanager
async def breakable(folder, *, count=2, **more):
    """Run pods on databases of their own."""
    async with AsyncExitStack() as stack:
        postgres = start_postgres(folder)
        stack.callback(postgres.stop)
        valkey = start_valkey(folder)
        stack.callback(valkey.stop)
        await migrate.migrate(Url(postgres.url))
        started = await stack.enter_async_context(
            pods(environment(postgres.url, valkey.url, **more), folder, count)
        )
        yield started, postgres, valkey


@pytest.fixture
def person(http):
    def make(pod, user_id=None):
        user_id = user_id or somebody()
        return Rest(http, pod.http, user_id, token(user_id))

    return make


def seqs(listener):
    return [message["seq"] for message in listener.of("message:new")]


async def test_everybody_has_every_message_once_while_pubsub_connections_are_killed(servers, cluster, person):
    senders = [person(cluster[n % 2]) for n in range(10)]
    room = await senders[0].group(*(sender.user_id for sender in senders[1:]))
    control = redis.asyncio.from_url(servers.redis_url)
    finished = asyncio.Event()

    async def kill():
        while not finished.is_set():
            await control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            try:
                async with asyncio.timeout(0.3):
                    await finished.wait()
            except TimeoutError:
                continue

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        listeners = [
            await stack.enter_async_context(
                ear(cluster[n % 2], sender.user_id, transports=["polling"] if n < 2 else ["websocket"])
            )
            for n, sender in enumerate(senders)
        ]
        group.create_task(kill())
        for number in range(30):
            await asyncio.gather(*(sender.say(room, f"{number}") for sender in senders))
        for listener in listeners:
            await listener.wait_for("message:new", 300)
            assert seqs(listener) == list(range(1, 301))
        finished.set()
    await control.aclose()


async def test_sockets_that_come_and_go_under_load_have_history_and_events_without_a_gap(cluster, person):
    anna, ben = person(cluster[0]), person(cluster[1])
    room = await anna.direct(ben.user_id)
    finished = asyncio.Event()

    async def talk():
        while not finished.is_set():
            await anna.say(room, "on and on")

    async def come_and_go(pod):
        for _ in range(10):
            async with ear(pod, ben.user_id) as listener:
                history = (await ben.get(f"/api/conversations/{room}/messages?limit=1")).json["items"]
                loaded = history[0]["seq"] if history else 0
                await listener.wait(
                    "later messages", lambda _, ear=listener, seq=loaded: max(seqs(ear), default=0) > seq + 3
                )
            heard = seqs(listener)
            assert heard == list(range(heard[0], heard[0] + len(heard)))
            assert heard[0] <= loaded + 1

    async with asyncio.TaskGroup() as group:
        talking = group.create_task(talk())
        await asyncio.gather(*(come_and_go(pod) for pod in cluster * 3))
        finished.set()
        await talking


async def test_redis_away_stops_no_message(folder, person):
    async with breakable(folder) as ((here, there), _, valkey):
        anna, ben = person(here), person(there)
        room = await anna.direct(ben.user_id)
        async with ear(here, anna.user_id) as near, ear(there, ben.user_id) as far:
            await anna.say(room, "before")
            await far.wait_for("message:new")
            valkey.stop()
            for n in range(5):
                await anna.say(room, f"during {n}")
            await near.wait_for("message:new", 6)
            await far.wait_for("message:new", 6)
            # A conversation that begins while Redis is away is one from the next connect on at the latest.
            async with ear(there, ben.user_id) as late:
                await anna.say(room, "to the late one as well")
                await late.wait_for("message:new")
            again = start_valkey(folder)
            try:
                await far.wait_for("message:new", 7)
                for n in range(5):
                    await ben.say(room, f"after {n}")
                await near.wait_for("message:new", 12)
                await far.wait_for("message:new", 12)
                assert seqs(near) == seqs(far) == list(range(1, 13))
            finally:
                again.stop()


async def test_postgresql_away_is_503_at_once_and_over_by_itself(folder, person):
    async with breakable(folder, count=1) as ((pod,), postgres, _):
        anna, ben = person(pod), person(pod)
        room = await anna.direct(ben.user_id)
        async with ear(pod, ben.user_id) as socket:
            await anna.say(room, "before")
            postgres.stop()
            answer = await anna.post(f"/api/conversations/{room}/messages", {"content": "during"})
            assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
            acknowledged = await socket.call("message:send", {"conversationId": room, "content": "during"})
            assert acknowledged["error"]["code"] == "SERVICE_UNAVAILABLE"
            assert (await anna.get("/health/ready")).status == 503
            assert (await anna.get("/health/live")).status == 200
            again = start_postgres(folder)
            try:
                await until(lambda: _is(anna, "/health/ready", 200), "ready again")
                await anna.say(room, "after")
                await socket.wait_for("message:new", 2)
                assert [message["content"] for message in socket.of("message:new")] == ["before", "after"]
                assert socket.of("disconnect") == []
            finally:
                again.stop()


async def _is(person, path, status):
    return (await person.get(path)).status == status


async def test_sigterm_moves_the_clients_over_and_ends_with_0(servers, tmp_path, person):
    async with pods(servers.environment(DRAIN_TIMEOUT="3s"), tmp_path, 2) as (leaving, staying):
        people = [person(staying) for _ in range(4)]
        room = await people[0].group(*(one.user_id for one in people[1:]))
        async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
            listeners = [await stack.enter_async_context(ear(leaving, one.user_id)) for one in people]
            leaving.signal(signal.SIGTERM)
            await asyncio.gather(*(listener.wait_for("disconnect") for listener in listeners[:1]))
            # The last of them is still there: not ready, and nobody new gets in.
            async with session.get(leaving.http + "/health/ready") as response:
                assert response.status == 503
            async with session.get(leaving.ws + "/health/ready") as response:
                assert response.status == 503
            async with session.get(leaving.ws + "/socket.io/?EIO=4&transport=polling") as response:
                assert (response.status, (await response.json())["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert listeners[-1].of("disconnect") == []
            await people[0].say(room, "still delivered")
            await listeners[-1].wait_for("message:new")
            assert await leaving.exit_code() == 0
            for listener in listeners:
                await listener.wait_for("disconnect")
        assert leaving.errors() == []


async def test_no_connection_of_a_pod_that_stops_ends_before_its_client_was_told(servers, tmp_path, person):
    async with pods(servers.environment(), tmp_path, 1) as (leaving,), AsyncExitStack() as stack:
        anna = person(leaving)
        room = await anna.group()
        answered = 0

        async def call(method, path, json):
            nonlocal answered
            # A connection of its own, which is kept. Of what is cut there aiohttp repeats no POST and no PATCH.
            session = await stack.enter_async_context(aiohttp.ClientSession())
            while True:
                answer = await replace(anna, session=session).call(method, path, json=json)
                assert answer.status in {200, 201}
                answered += 1
                if answer.headers["Connection"] == "close":
                    break

        path = f"/api/conversations/{room}"
        calls = [("POST", path + "/messages", {"content": "on and on"}), ("PATCH", path, {"title": "the same"})]
        callers = [asyncio.create_task(call(*one)) for one in calls for _ in range(4)]

        async def are_served():
            return answered > 100

        await until(are_served, "calls that are answered")
        leaving.signal(signal.SIGTERM)
        await asyncio.gather(*callers)
        assert await leaving.exit_code() == 0
        assert leaving.errors() == []


async def test_a_killed_pod_loses_nothing_that_was_acknowledged(servers, tmp_path, person):
    async with pods(servers.environment(), tmp_path, 2) as (doomed, staying):
        anna, ben = person(doomed), person(staying)
        room = await anna.direct(ben.user_id)
        acknowledged = []

        async def talk():
            while True:
                acknowledged.append(await anna.say(room, "on and on"))

        async with ear(staying, ben.user_id) as listener:
            talking = asyncio.create_task(talk())
            await listener.wait_for("message:new", 50)
            doomed.signal(signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await talking
            await doomed.exit_code()
            last = acknowledged[-1]["seq"]
            await listener.wait_for("message:new", last)
            assert seqs(listener) == list(range(1, len(seqs(listener)) + 1))
        stored = (await ben.get(f"/api/conversations/{room}")).json["lastSeq"]
        assert stored in {last, last + 1}


async def test_a_stopped_pod_hands_its_presence_back(folder, person):
    async with breakable(folder, count=1) as ((pod,), _, valkey):
        anna = person(pod)
        control = redis.asyncio.from_url(valkey.url)
        async with ear(pod, anna.user_id):
            assert await control.keys("chat:pod:*")
            assert await control.zcard("chat:pods") == 1
            pod.signal(signal.SIGTERM)
            assert await pod.exit_code() == 0
        assert await control.keys("chat:pod:*") == []
        assert await control.zcard("chat:pods") == 0
        await control.aclose()


async def test_what_the_drain_does_not_wait_for_is_unavailable_and_no_error(folder, person):
    async with (
        breakable(folder, count=1, DRAIN_TIMEOUT="1s") as ((pod,), postgres, _),
        AsyncExitStack() as stack,
    ):
        anna = person(pod)
        room = await anna.group()
        blocker = await asyncpg.connect(postgres.url)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE")
        # To close its transport takes all the time that there is.
        await asyncio.gather(*(stack.enter_async_context(ear(pod, somebody())) for _ in range(3)))
        calls = [
            asyncio.create_task(anna.get(f"/api/conversations/{room}")),
            asyncio.create_task(anna.patch(f"/api/conversations/{room}", {"title": "x"})),
        ]

        async def are_waiting():
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return await blocker.fetchval(waiting) >= len(calls)

        await until(are_waiting, "both calls wait")
        pod.signal(signal.SIGTERM)
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, aiohttp.ClientError) or answer.status == 503
        assert await pod.exit_code() == 0
        assert pod.errors() == []
        await transaction.rollback()
        await blocker.close()


async def test_a_pod_that_postgresql_does_not_let_in_waits_and_says_so_once(servers, tmp_path):
    parts = urlsplit(servers.database_url)
    refused = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}").geturl()
    pod = Pod({**servers.environment(), "DATABASE_URL": refused}, tmp_path / "pod.log")
    try:
        await pod.start(ready=False)

        async def is_told() -> bool:
            return "PostgreSQL is away: password authentication failed" in pod.log.read_text()

        await until(is_told, "why it waits")
        pod.signal(signal.SIGTERM)
        assert await pod.exit_code() == 0
    finally:
        await pod.kill()
    assert pod.errors() == []
    assert pod.log.read_text().count("PostgreSQL is away") == 1


async def test_processes_that_come_before_the_migrations_wait_without_an_error(servers, tmp_path, person):
    async with AsyncExitStack() as stack:
        database_url = await stack.enter_async_context(empty_database(servers.database_url))
        master = await stack.enter_async_context(receiver())
        env = {
            **servers.environment(WEBHOOK_URL=master.url, WEBHOOK_SECRET=WEBHOOK_SECRET),
            "DATABASE_URL": database_url,
        }
        pod, worker = Pod(env, tmp_path / "pod.log"), Worker(env, tmp_path / "worker.log")
        for process in (pod, worker):
            stack.push_async_callback(process.kill)
            await process.start(ready=False)

            async def waits(process=process):
                return "waiting for `chat-service migrate`" in process.log.read_text()

            await until(waits, "that it waits")
            assert (await person(process).get("/health/ready")).status == 503
        migrate = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "migrate"),
            env=env,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await migrate.wait() == 0
        for process in (pod, worker):
            await until(lambda process=process: _is(person(process), "/health/ready", 200), "ready")
        anna = person(pod)
        async with ear(pod, anna.user_id) as listener:
            await anna.say(await anna.group(), "Hello")
            await listener.wait_for("message:new")
        await master.wait_for("message.created")
        for process in (pod, worker):
            await process.stop()
            assert process.errors() == []


async def test_a_loop_that_fails_is_counted_and_goes_on(folder, person, http):
    async with breakable(folder, count=1) as ((pod,), postgres, _):
        anna = person(pod)
        room = await anna.group()
        database = await asyncpg.connect(postgres.url)
        looking = ("chat_loop_failures_total", "look")
        assert looking not in await series(http, pod.http)
        await database.execute("ALTER TABLE notices RENAME TO taken_away")

        async def fails():
            return (await series(http, pod.http)).get(looking, 0) > 0

        await until(fails, "a failure of the loop")
        async with ear(pod, anna.user_id) as listener:
            await database.execute("ALTER TABLE taken_away RENAME TO notices")
            # No news: that loop alone can find it.
            notice = "INSERT INTO notices (kind, conversation_id) VALUES ('dissolved', $1)"
            await database.execute(notice, ids.from_wire(ids.CONVERSATION, room))
            await listener.wait_for("conversation:deleted")
        await database.close()


async def test_news_of_its_own_that_a_pod_does_not_hear_is_counted(servers, tmp_path, http):
    async with leaking(servers.redis_url) as leak:
        leak.is_leaking = True
        async with pods({**servers.environment(), "REDIS_URL": leak.url}, tmp_path, 1) as (pod,):

            async def grows(name):
                async def has_grown():
                    return (await series(http, pod.http))[name,] > before

                before = (await series(http, pod.http))[name,]
                await until(has_grown, name, 15)

            await grows("chat_canary_failures_total")
            leak.is_leaking = False
            await grows("chat_canary_seconds_count")


async def test_a_worker_that_is_missing_is_shown_until_there_is_one(folder, person, http):
    async with receiver() as master:
        webhooks = {"WEBHOOK_URL": master.url, "WEBHOOK_SECRET": WEBHOOK_SECRET}
        async with breakable(folder, count=1, **webhooks) as ((pod,), postgres, valkey):

            async def is_missing(value):
                return (await series(http, pod.http))["chat_webhook_worker_missing",] == value

            await person(pod).group()
            assert await is_missing(0)
            database = await asyncpg.connect(postgres.url)
            # As if a minute had gone by.
            await database.execute("UPDATE webhooks SET due_at = now() - interval '61 seconds'")
            await database.close()
            await until(lambda: is_missing(1), "that it is missing", 20)
            worker = Worker(environment(postgres.url, valkey.url, **webhooks), folder / "worker.log")
            try:
                await worker.start()
                await until(lambda: is_missing(0), "that it is there", 20)
            finally:
                await worker.kill()
