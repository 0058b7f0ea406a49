import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.postgres.conversation_rows import UNREAD_CEILING
from app.postgres.message_rows import MESSAGE_COLUMNS
from app.postgres.statements import parse, statement
from app.webhooks.queue import LEASE, LOOKED_AT_ONCE, RETRIES_OF_A_LANE

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"


def files() -> list[Path]:
    return sorted((APP / "postgres" / "sql").glob("*.sql"))


def names() -> list[str]:
    return [name for file in files() for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)]


def test_a_statement_is_its_text_without_its_why():
    assert parse(["-- name: one\n-- Why.\n-- More of it.\nSELECT 1\n  FROM a\n\n-- name: two\nSELECT '{}'\n"]) == {
        "one": "SELECT 1\n  FROM a",
        "two": "SELECT '{}'",
    }


def test_fragments_are_put_in_place_whichever_file_has_them():
    texts = ["-- name: whole\nSELECT {part}, {part}\n", "-- name: part\n({least})\n", "-- name: least\n1\n"]
    assert parse(texts)["whole"] == "SELECT (1), (1)"


@pytest.mark.parametrize(
    "texts",
    [
        ["-- name: one\nSELECT 1\n", "-- name: one\nSELECT 2\n"],
        ["-- name: one\nSELECT {two}\n"],
        ["-- name: one\n{two}\n\n-- name: two\n{one}\n"],
        ["SELECT 1\n"],
    ],
    ids=["a name twice", "an unknown fragment", "a fragment within itself", "no name"],
)
def test_what_is_ambiguous_or_unknown_is_refused(texts):
    with pytest.raises(ValueError, match=r"name|include"):
        parse(texts)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no_such_statement"):
        statement("no_such_statement")


def test_every_statement_is_used():
    code = "\n".join(path.read_text() for path in APP.rglob("*.py"))
    sql = "\n".join(file.read_text() for file in files())
    unused = [name for name in names() if f'statement("{name}")' not in code and f"{{{name}}}" not in sql]
    assert names()
    assert unused == []


def test_statements_and_code_mean_the_same_by_their_numbers():
    for name in ("claim_lanes", "claim_due", "renew_leases", "renew_presence_leases"):
        assert f"interval '{LEASE:g} seconds'" in statement(name)
    assert f"FETCH FIRST {LOOKED_AT_ONCE} ROWS" in statement("claim_due")
    assert f"count(*) >= {LOOKED_AT_ONCE} " in statement("claim_due")
    assert f"place <= {RETRIES_OF_A_LANE} " in statement("claim_due")
    assert f"unread = {UNREAD_CEILING} " in statement("get_conversation")
    for column in MESSAGE_COLUMNS:
        assert f"m.{column} AS last_message_{column}" in statement("get_conversation")


def test_only_the_database_and_one_module_decide_whether_a_token_counts():
    for path in [*files(), *APP.rglob("*.py")]:
        if path.name != "revocation.py" and "migrations" not in path.parts:
            assert not re.search(r"refused_until\s*>=|The user was deleted", path.read_text()), path


def test_the_wheel_carries_all_statements(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    wheel = tmp_path / built.stdout.split()[-1]
    read = (
        "from importlib.resources import files\n"
        "from app.postgres import statements\n"
        "print(statements.__file__)\n"
        "print(*(file.name for file in files('app.postgres').joinpath('sql').iterdir()))\n"
        "print(statements.statement('send_messages'))"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", read],
        cwd=tmp_path,
        env={"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    place, shipped, send = found.stdout.split("\n", 2)
    assert place.startswith(str(wheel))
    assert sorted(shipped.split()) == [file.name for file in files()]
    assert send.strip() == statement("send_messages")
