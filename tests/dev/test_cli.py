import re
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
from databases import empty_database
from pods import INTERNAL_SECRET, ISSUER, SECRET, free_port, until
from processes import Command, ask, processes_of

from app.config.settings import Settings, specs
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.identity.tokens import TokenVerifier

COMMANDS = ["dev", "serve", "migrate", "token", "config"]
REQUIRED = {"AUTH_JWT_SECRET", "AUTH_JWT_ISSUER", "INTERNAL_API_SECRET", "DATABASE_URL", "REDIS_URL"}
GOOD = {
    "AUTH_JWT_SECRET": SECRET,
    "AUTH_JWT_ISSUER": ISSUER,
    "INTERNAL_API_SECRET": INTERNAL_SECRET,
    "DATABASE_URL": "postgresql://chat:hush-hush@db.example.com/chat",
    "REDIS_URL": "redis://:hush-hush@redis.example.com/0",
}
BAD = {
    "AUTH_JWT_SECRET": "",
    "DATABASE_URL": "mysql://chat:hush-hush@db.example.com/chat",
    "REDIS_URL": "hush-hush",
    "HTTP_PORT": "70000",
    "RATE_LIMIT_SEND": "often",
    "ALLOWED_ORIGINS": "*",
    "DRAIN_TIMEOUT": "0",
    "LOG_LEVEL": "loud",
    "WEBHOOK_URL": "http://hooks.example.com",
}
# What makes up a schema, in the words of PostgreSQL.
SCHEMA = """
SELECT array_agg(line ORDER BY line) FROM (
    SELECT concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable)
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
              WHERE connamespace = 'public'::regnamespace
) AS lines(line)
"""


def named(err: str) -> set[str]:
    """Give the settings that an error names, each on a line of its own."""
    return set(re.findall(r"^  ([A-Z_]+): ", err, re.MULTILINE))


@pytest.fixture
async def fresh_database(server_urls) -> AsyncIterator[str]:
    async with empty_database(server_urls[0]) as url:
        yield url


def test_each_command_names_what_it_misses_and_asks_for_no_more(command):
    missing = [REQUIRED, {"DATABASE_URL"}, {"AUTH_JWT_SECRET", "AUTH_JWT_ISSUER"}]
    started = [command("serve"), command("migrate"), command("token", "anna")]
    assert [each.ends() for each in started] == [2, 2, 2]
    assert [named(each.err) for each in started] == missing
    assert [each.out for each in started] == ["", "", ""]


def test_every_bad_setting_is_named_and_no_secret_is_shown(command):
    ended = command("serve", **{**GOOD, **BAD})
    assert ended.ends() == 2
    assert named(ended.err) == {*BAD, "WEBHOOK_SECRET"} - {"WEBHOOK_URL"}
    assert [secret for secret in ("hush-hush", INTERNAL_SECRET) if secret in ended.err] == []
    assert ended.out == ""


def test_config_prints_every_setting_with_secrets_masked(command):
    ended = command("config", **GOOD)
    assert ended.ends() == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == list(specs())
    assert "postgresql://********@db.example.com/chat" in ended.out
    assert [secret for secret in ("hush-hush", SECRET, INTERNAL_SECRET) if secret in ended.out] == []
    assert re.search(r"^HTTP_PORT +4000 +\[default: 4000; default\]$", ended.out, re.MULTILINE)
    assert ended.err == ""


def test_config_prints_every_setting_also_when_some_are_bad_or_missing(command):
    ended = command("config", **BAD)
    assert ended.ends() == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == list(specs())
    assert re.search(r"^HTTP_PORT +BAD: .*65535", ended.out, re.MULTILINE)
    assert re.search(r"^INTERNAL_API_SECRET +BAD: is missing", ended.out, re.MULTILINE)
    assert "hush-hush" not in ended.out


def test_config_check_fails_where_a_setting_is_bad_or_missing(command):
    good, bad = command("config", "--check", **GOOD), command("config", "--check", **BAD)
    assert (good.ends(), good.err) == (0, "")
    assert bad.ends() == 2
    assert named(bad.err) >= set(BAD) - {"WEBHOOK_URL"}
    assert [len(each.out.splitlines()) for each in (good, bad)] == [len(specs())] * 2


def test_one_port_for_two_listeners_is_a_bad_setting(command):
    ports = {"HTTP_PORT": "4500", "WS_PORT": "4500", "METRICS_PORT": "4500"}
    for ended in (command("config", "--check", **GOOD, **ports), command("serve", **GOOD, **ports)):
        assert ended.ends() == 2
        assert named(ended.err) == {"WS_PORT", "METRICS_PORT"}
        assert "WS_PORT: must differ from HTTP_PORT, which is 4500 as well" in ended.err
    # A worker is a process of its own.
    alone = command("config", "--check", **GOOD, HTTP_PORT="4500", WORKER_PORT="4500")
    assert (alone.ends(), alone.err) == (0, "")


@pytest.mark.parametrize("audience", [{}, {"AUTH_JWT_AUDIENCE": "chat"}])
def test_token_prints_one_that_is_accepted(command, audience):
    ended = command("token", "anna", AUTH_JWT_SECRET=SECRET, AUTH_JWT_ISSUER=ISSUER, **audience)
    assert ended.ends() == 0
    actor = TokenVerifier(Settings.read({**GOOD, **audience})).verify(ended.out.rstrip("\n"))
    assert (actor.user_id, actor.can_read, actor.can_write) == ("anna", True, True)
    assert ended.err == ""


def test_token_refuses_an_id_that_the_service_would_refuse(command):
    reasons = {"x" * 200: "1 to 128 characters", "": "1 to 128 characters", "caf\udce9": "must be UTF-8"}
    started = [command("token", user, AUTH_JWT_SECRET=SECRET, AUTH_JWT_ISSUER=ISSUER) for user in reasons]
    for each, reason in zip(started, reasons.values(), strict=True):
        assert each.ends() == 2
        assert reason in each.err
        assert each.out == ""


def test_help_explains_every_command(command):
    general, *each = [command("--help"), *(command(name, "--help") for name in COMMANDS)]
    assert general.ends() == 0
    assert [name for name in COMMANDS if not re.search(rf"^ +{name} +\w", general.out, re.MULTILINE)] == []
    for name, ended in zip(COMMANDS, each, strict=True):
        assert ended.ends() == 0
        assert ended.out.startswith(f"usage: chat-service {name} ")
        # More than usage and options: a sentence that says what it does.
        assert re.search(r"^[A-Z].*\.$", ended.out, re.MULTILINE)


def test_a_wrong_command_line_is_answered_with_the_usage(command):
    for ended in [command(), command("frobnicate"), command("token")]:
        assert ended.ends() == 2
        assert ended.err.startswith("usage: chat-service")
        assert ended.out == ""


@pytest.mark.parametrize("setting", ["HTTP_PORT", "WS_PORT"])
def test_serve_tells_of_one_port_that_is_taken(command, setting, server_urls):
    taken = urlsplit(server_urls[0]).port
    ports = {
        "HTTP_HOST": "127.0.0.1",
        "WS_HOST": "127.0.0.1",
        "HTTP_PORT": f"{free_port()}",
        "WS_PORT": f"{free_port()}",
    }
    ended = command("serve", **{**GOOD, **ports, setting: f"{taken}"})
    assert ended.ends() == 1
    assert re.fullmatch(rf"Cannot listen on 127\.0\.0\.1:{taken}: .*Set {setting} to another port.*\n", ended.err)


@pytest.mark.parametrize(("setting", "host"), [("HTTP_HOST", "256.1.1.1"), ("WS_HOST", "192.0.2.1")])
def test_serve_names_a_host_that_is_none_of_this_machine(command, setting, host):
    ports = {"HTTP_PORT": f"{free_port()}", "WS_PORT": f"{free_port()}"}
    ended = command("serve", **{**GOOD, "HTTP_HOST": "127.0.0.1", "WS_HOST": "127.0.0.1", **ports, setting: host})
    assert ended.ends() == 2
    assert re.fullmatch(rf"{setting}: {host} is no address of this machine: .*\n", ended.err)


async def test_ten_migrations_at_once_make_one_whole_schema(command, fresh_database, servers):
    started = [command("migrate", DATABASE_URL=fresh_database) for _ in range(10)]
    assert [each.ends() for each in started] == [0] * 10
    assert [each.err for each in started if '"level":"ERROR"' in each.err] == []
    schema = await ask(fresh_database, SCHEMA)
    assert schema == await ask(servers.database_url, SCHEMA)
    tables = Counter(line.split()[0] for line in schema)
    assert {"conversations", "conversation_heads", "messages", "participants"} <= tables.keys()


async def test_migrate_waits_for_postgres(folder, command):
    server = start_postgres(folder)
    server.stop()
    early = command("migrate", DATABASE_URL=server.url, LOG_FORMAT="text")
    early.says("PostgreSQL is not there yet, trying again: ")
    assert early.process.poll() is None
    again = start_postgres(folder)
    try:
        assert again.url == server.url
        assert early.ends() == 0
        assert await ask(server.url, "SELECT count(*) FROM messages") == 0
    finally:
        again.stop()


def test_a_migration_ends_at_sigterm_by_a_handler_of_its_own_as_process_1_needs(command):
    waiting = command("migrate", DATABASE_URL=f"postgresql://chat@127.0.0.1:{free_port()}/chat", LOG_FORMAT="text")
    waiting.says("PostgreSQL is not there yet, trying again: ")
    waiting.process.terminate()
    assert waiting.ends() == 143


def test_migrate_gives_up_in_the_end(folder):
    hurried = "from app.__main__ import main, migrate; migrate.PATIENCE, migrate.RETRY = 1, 0.3; main()"
    url = f"postgresql://chat:hush-hush@127.0.0.1:{free_port()}/chat"
    early = Command(folder, ("-c", hurried, "migrate"), {"DATABASE_URL": url, "LOG_FORMAT": "text"})
    assert early.ends(20) == 1
    *waiting, last = early.err.splitlines()
    assert len(waiting) > 1
    assert all("PostgreSQL is not there yet" in line for line in waiting)
    assert last.startswith("PostgreSQL is not there after 1 s: ")
    assert "hush-hush" not in early.err


async def test_serve_waits_for_its_servers_alive_but_not_ready(folder, command, http):
    started = [start_postgres(folder), start_valkey(folder)]
    urls = {"DATABASE_URL": started[0].url, "REDIS_URL": started[1].url}
    try:
        assert command("migrate", **urls).ends() == 0
        for server in started:
            server.stop()
        port = free_port()
        hosts = {"HTTP_HOST": "127.0.0.1", "WS_HOST": "127.0.0.1", "DRAIN_TIMEOUT": "1s"}
        pod = command("serve", **{**GOOD, **urls, **hosts, "HTTP_PORT": f"{port}", "WS_PORT": f"{free_port()}"})

        async def answers(path: str, status: int) -> bool:
            try:
                async with http.get(f"http://127.0.0.1:{port}/health/{path}") as response:
                    return response.status == status
            except aiohttp.ClientConnectionError:
                return False

        await until(lambda: answers("live", 200), "200 of /health/live", 20)
        assert await answers("ready", 503)
        started += [start_valkey(folder), start_postgres(folder)]
        assert [server.url for server in started[:1:-1]] == list(urls.values())
        await until(lambda: answers("ready", 200), "200 of /health/ready", 20)
        pod.interrupt()
        assert pod.process.wait(10) == 0
    finally:
        for server in started:
            server.stop()
    assert processes_of(folder) == []
