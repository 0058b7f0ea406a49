"""PostgreSQL that stalls, vanishes without a word, or refuses what it is asked: 503, and over by itself."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
import psutil
import pytest
from blackhole import black_hole
from clients import Rest, ear, somebody, token
from databases import new_database
from pods import INTERNAL_SECRET, pods, until
from scraping import series

from app.config.types import Url
from app.contract import ids
from app.dev.postgres import start_postgres
from app.postgres.migrate import migrate

# Longer than `/health/ready` may take, with a machine that has other things to do.
READY_TIMEOUT = aiohttp.ClientTimeout(total=2.5)

# What PostgreSQL says when it refuses for a while, and something that nobody knows.
REFUSALS = (
    "08006", "25006", "25P03", "40001", "40P01", "42501", "53000", "53100", "53200", "53300", "53400", "55P03",
    "57014", "57P01", "57P03", "57P05", "58000", "58030", "P0001", "XX000", "XX001", "ZZ123",
)  # fmt: skip

CONFLICTS = ("40001", "40P01", "55P03")

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'refused by the test' USING ERRCODE = TG_ARGV[0]; END $$
"""

# A sequence goes on, whatever is rolled back.
REFUSE_TWICE = """
CREATE FUNCTION refuse_twice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('refused') <= 2 THEN RAISE EXCEPTION 'refused by the test' USING ERRCODE = TG_ARGV[0]; END IF;
    RETURN NEW;
END $$
"""


@pytest.fixture
async def kept():
    """Give a session with one connection, which is kept: all its calls are served by one task of the pod."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        yield session


@pytest.fixture
async def database_url(servers):
    """Give a database in which no other pods do anything."""
    async with new_database(servers.database_url) as url:
        yield url


@pytest.fixture
async def database(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def person(session, pod):
    user_id = somebody()
    return Rest(session, pod.http, user_id, token(user_id))


@asynccontextmanager
async def one_pod(servers, url, folder, **more):
    async with pods({**servers.environment(**more), "DATABASE_URL": url}, folder, 1) as (pod,):
        yield pod


def patch(one, room, title):
    return one.patch(f"/api/conversations/{room}", {"title": title})


def warnings(pod, text):
    return [line for line in pod.log.read_text().splitlines() if '"level":"WARNING"' in line and text in line]


async def ready(pod, session):
    """Tell whether both listeners say that the pod is ready; they answer soon, whatever they say."""
    statuses = []
    for base in (pod.http, pod.ws):
        async with session.get(base + "/health/ready", timeout=READY_TIMEOUT) as answer:
            statuses.append(answer.status)
    assert set(statuses) <= {200, 503}
    return statuses == [200, 200]


async def test_changes_after_a_begin_that_was_held_up_are_committed(servers, tmp_path, kept, sql):
    async with black_hole(servers.database_url) as hole, one_pod(servers, hole.url, tmp_path) as pod:
        anna = person(kept, pod)
        room = await anna.group()
        conversation_id = ids.from_wire(ids.CONVERSATION, room)
        assert (await patch(anna, room, "before")).status == 200
        hole.stop_at(b"BEGIN")
        # Until its deadline, on a connection that others do not need.
        assert (await patch(anna, room, "held up")).status == 503
        assert hole.stopped.is_set()
        for title in ("first", "second"):
            assert (await patch(anna, room, title)).status == 200
            found = "SELECT title FROM conversations WHERE id = $1"
            assert await sql.fetchval(found, conversation_id) == title
        # The head is free: nobody waits for it.
        head = "SELECT 1 FROM conversation_heads WHERE conversation_id = $1 FOR UPDATE NOWAIT"
        assert await sql.fetchval(head, conversation_id) == 1
        hole.go_on()
        # All connections can be used, also together.
        answers = await asyncio.gather(*(patch(anna, room, f"{number}") for number in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert pod.errors() == []


async def test_a_postgresql_that_vanishes_without_a_word_is_away_and_found_again(servers, tmp_path, http):
    async with black_hole(servers.database_url) as hole, one_pod(servers, hole.url, tmp_path) as pod:
        anna, ben = person(http, pod), person(http, pod)
        room = await anna.direct(ben.user_id)
        group = await anna.group()
        async with ear(pod, ben.user_id) as listener:
            await anna.say(room, "before")
            hole.vanish()

            async def is_away():
                return not await ready(pod, http)

            # Those that are under way when it vanishes end as well.
            calls = [asyncio.create_task(patch(anna, group, "lost")) for _ in range(12)]
            calls += [asyncio.create_task(anna.get("/api/conversations")) for _ in range(12)]
            await until(is_away, "not ready")
            assert {answer.status for answer in await asyncio.gather(*calls)} == {503}
            # From then on nobody waits for it.
            async with asyncio.timeout(2):
                for _ in range(5):
                    assert (await anna.get("/api/conversations")).status == 503
            hole.replace()
            await until(lambda: ready(pod, http), "ready again", 5)
            assert (await patch(anna, group, "after")).status == 200
            await anna.say(room, "after")
            await listener.wait_for("message:new", 2)
            assert listener.of("disconnect") == []
        assert pod.errors() == []
        assert len(warnings(pod, "PostgreSQL is away")) == 1


async def test_ready_answers_while_postgresql_is_stopped(servers, folder, http):
    postgres = start_postgres(folder)
    try:
        await migrate(Url(postgres.url))
        async with one_pod(servers, postgres.url, folder) as pod:
            anna = person(http, pod)
            room = await anna.group()
            server = psutil.Process(postgres.pid)
            stopped = [server, *server.children(recursive=True)]
            for process in stopped:
                process.suspend()
            try:

                async def is_away():
                    return not await ready(pod, http)

                await until(is_away, "not ready")
                for _ in range(3):
                    assert not await ready(pod, http)
                async with http.get(pod.http + "/health/live", timeout=READY_TIMEOUT) as answer:
                    assert answer.status == 200
            finally:
                for process in stopped:
                    process.resume()
            await until(lambda: ready(pod, http), "ready again", 15)
            assert (await patch(anna, room, "after")).status == 200
            assert pod.errors() == []
    finally:
        postgres.stop()


async def test_whatever_postgresql_refuses_for_a_while_is_unavailable_and_told_once(
    servers, tmp_path, http, database_url, database
):
    await database.execute(REFUSE)
    async with one_pod(servers, database_url, tmp_path) as pod:
        anna = person(http, pod)
        room = await anna.group()
        path = f"/api/conversations/{room}/messages"
        first = await anna.say(room, "before")
        async with ear(pod, anna.user_id) as socket:
            for sqlstate in REFUSALS:
                await database.execute(
                    f"CREATE TRIGGER refuse BEFORE UPDATE ON conversation_heads "
                    f"FOR EACH ROW EXECUTE FUNCTION refuse('{sqlstate}')"
                )
                for answer in (
                    await patch(anna, room, sqlstate),
                    await anna.post(path, {"content": sqlstate}),
                    await anna.patch(f"/api/messages/{first['id']}", {"content": sqlstate}),
                ):
                    assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE"), sqlstate
                for event, more in (
                    ("message:send", {"conversationId": room}),
                    ("message:edit", {"messageId": first["id"]}),
                ):
                    told = await socket.call(event, {"content": sqlstate, **more})
                    assert told["error"]["code"] == "SERVICE_UNAVAILABLE", sqlstate
                await database.execute("DROP TRIGGER refuse ON conversation_heads")
                assert (await patch(anna, room, f"after {sqlstate}")).status == 200
                assert (await anna.post(path, {"content": sqlstate})).status == 201
            assert socket.of("disconnect") == []
            # Background jobs wait as well.
            await database.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON chores FOR EACH STATEMENT EXECUTE FUNCTION refuse('53100')"
            )

            async def waits():
                return len(warnings(pod, "the loop background jobs waits")) == 1

            await until(waits, "the loop that does background jobs")
        assert pod.errors() == []
        assert "Traceback" not in pod.log.read_text()
        for sqlstate in REFUSALS:
            # Some of them are known for what is away: those are told as that.
            assert len(warnings(pod, "refused by the test")) <= len(REFUSALS)
            if not sqlstate.startswith(("08", "57P")):
                assert len(warnings(pod, f"({sqlstate})")) == 1, sqlstate
        found = await series(http, pod.http)
        assert found["chat_database_errors_total", "unknown"] >= 5
        assert found["chat_database_errors_total", "53"] >= 25


async def test_a_conflict_that_passes_is_seen_by_nobody(servers, tmp_path, http, database_url, database):
    await database.execute(REFUSE_TWICE)
    cases = [(code, table) for code in CONFLICTS for table in ("conversation_heads", "conversations")]
    limit = {"RATE_LIMIT_WRITE": f"1/h,{len(cases)}"}
    async with one_pod(servers, database_url, tmp_path, **limit) as pod:
        anna = person(http, pod)
        room = await anna.group()
        async with ear(pod, anna.user_id) as socket:
            for sqlstate, table in cases:
                title = f"{sqlstate} of {table}"
                await database.execute("DROP SEQUENCE IF EXISTS refused; CREATE SEQUENCE refused")
                await database.execute(
                    f"CREATE TRIGGER refuse BEFORE UPDATE ON {table} "
                    f"FOR EACH ROW EXECUTE FUNCTION refuse_twice('{sqlstate}')"
                )
                answer = await patch(anna, room, title)
                assert (answer.status, answer.json.get("title")) == (200, title)
                # What was done again was counted once, and announced once.
                assert await database.fetchval("SELECT last_value FROM refused") == 3
                await database.execute(f"DROP TRIGGER refuse ON {table}")
            assert (await patch(anna, room, "one too many")).status == 429
            heard = await socket.wait_for("conversation:updated", len(cases))
            assert [event["title"] for event in heard] == [f"{code} of {table}" for code, table in cases]
        assert (await anna.get(f"/api/conversations/{room}")).json["lastSeq"] == len(cases)
        assert pod.errors() == []
        assert warnings(pod, "PostgreSQL") == []


async def test_a_new_conversation_and_a_deletion_are_refused_for_a_while_or_done_again(
    servers, tmp_path, http, database_url, database
):
    await database.execute(REFUSE + ";" + REFUSE_TWICE)
    async with one_pod(servers, database_url, tmp_path) as pod:
        anna = person(http, pod)

        def create():
            return anna.post("/api/conversations", {"type": "group", "participantIds": []})

        def delete():
            headers = {"X-Internal-Secret": INTERNAL_SECRET}
            return http.delete(f"{pod.http}/api/users/{somebody()}", headers=headers)

        for act, table, done in ((create, "conversations", 201), (delete, "users", 204)):
            for sqlstate in REFUSALS:
                await database.execute(
                    f"CREATE TRIGGER refuse BEFORE INSERT ON {table} "
                    f"FOR EACH ROW EXECUTE FUNCTION refuse('{sqlstate}')"
                )
                assert (await act()).status == 503, (table, sqlstate)
                await database.execute(f"DROP TRIGGER refuse ON {table}")
            for sqlstate in CONFLICTS:
                await database.execute("DROP SEQUENCE IF EXISTS refused; CREATE SEQUENCE refused")
                await database.execute(
                    f"CREATE TRIGGER refuse BEFORE INSERT ON {table} "
                    f"FOR EACH ROW EXECUTE FUNCTION refuse_twice('{sqlstate}')"
                )
                assert (await act()).status == done, (table, sqlstate)
                await database.execute(f"DROP TRIGGER refuse ON {table}")
        assert pod.errors() == []


async def test_a_primary_that_becomes_a_standby_is_away(servers, tmp_path, http, database_url, database):
    # In place of PostgreSQL's own function.
    await database.execute("CREATE SCHEMA role; CREATE TABLE role.standby AS SELECT false AS is_standby")
    await database.execute(
        "CREATE FUNCTION role.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'TABLE role.standby'"
    )
    name = await database.fetchval("SELECT current_database()")
    await database.execute(f"ALTER DATABASE {name} SET search_path = role, pg_catalog, public")
    async with one_pod(servers, database_url, tmp_path) as pod:
        anna = person(http, pod)
        room = await anna.group()
        await database.execute("UPDATE role.standby SET is_standby = true")

        async def is_away():
            return not await ready(pod, http)

        await until(is_away, "not ready")
        assert (await patch(anna, room, "lost")).status == 503
        await database.execute("UPDATE role.standby SET is_standby = false")
        await until(lambda: ready(pod, http), "ready again", 5)
        assert (await patch(anna, room, "after")).status == 200
        assert len(warnings(pod, "it is a standby")) == 1
        assert pod.errors() == []


async def test_what_a_database_has_set_for_itself_does_not_matter(servers, tmp_path, http, database_url, database):
    name = await database.fetchval("SELECT current_database()")
    for setting in (
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "lock_timeout = 1",
    ):
        await database.execute(f"ALTER DATABASE {name} SET {setting}")
    # As if it had just been made: a new process applies what is missing.
    await migrate(Url(database_url))
    async with one_pod(servers, database_url, tmp_path) as pod:
        anna = person(http, pod)
        room = await anna.group()
        answers = await asyncio.gather(*(patch(anna, room, f"{number}") for number in range(20)))
        assert {answer.status for answer in answers} == {200}
        await anna.say(room, "said")
        assert pod.errors() == []


async def test_who_reads_much_holds_up_nobody_else(servers, tmp_path, http, database_url, database):
    async with one_pod(servers, database_url, tmp_path) as pod:
        anna, ben = person(http, pod), person(http, pod)
        room, other = await anna.group(ben.user_id), await anna.group(ben.user_id)
        await anna.say(room, "before")
        # What is read with each message.
        await database.execute("BEGIN; LOCK TABLE reactions IN ACCESS EXCLUSIVE MODE")
        lists = [
            asyncio.create_task(anna.get(path))
            for path in (f"/api/conversations/{room}/messages", "/api/conversations") * 10
        ]
        waiting = "SELECT count(*) >= 4 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
        name = await database.fetchval("SELECT current_database()")
        watcher = await asyncpg.connect(servers.database_url)
        await until(lambda: watcher.fetchval(waiting, name), "lists that wait")
        await watcher.close()
        # A change, a check who is in, sends and a connect.
        assert (await ben.delete(f"/api/conversations/{other}/participants/{ben.user_id}")).status == 204
        assert (await ben.get(f"/api/conversations/{room}/presence")).status == 200
        await ben.say(room, "meanwhile")
        async with ear(pod, ben.user_id) as socket:
            answer = await socket.call("message:send", {"conversationId": room, "content": "meanwhile"})
            assert answer["ok"] is True
        assert [one for one in lists if one.done()] == []
        await database.execute("COMMIT")
        assert {answer.status for answer in await asyncio.gather(*lists)} == {200}
