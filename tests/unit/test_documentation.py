"""The documentation is whole and true: links, navigation, generated pages, and a test for every block of code."""

import re
import subprocess
import sys
import tomllib

import generate_docs
import pages
import pytest

from app.config.settings import specs
from app.rest.errors import STATUS

README_LIMIT = 8_000
SITE = tomllib.loads((pages.ROOT / "zensical.toml").read_text())["project"]
# The blocks of code by page and language, and the tests that run them.
RUN_BY = {
    ("README.md", "sh"): ("tests/dev/test_walks.py", "tests/unit/test_documentation.py"),
    ("README.md", "javascript"): ("tests/node/test_examples.py", "tests/node/test_types.py"),
    ("CONTRIBUTING.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/benchmarks.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/contributing.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/deploy-infrastructure.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/deploy-infrastructure.md", "sql"): ("tests/dev/test_walks.py",),
    ("docs/deploy-kubernetes.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/deploy-kubernetes.md", "yaml"): ("tests/chart/test_docs_of_the_chart.py",),
    ("docs/frontend-chat-client.md", "javascript"): ("tests/node/test_examples.py", "tests/node/test_types.py"),
    ("docs/frontend-socketio.md", "javascript"): ("tests/node/test_examples.py",),
    ("docs/master-express.md", "javascript"): ("tests/node/test_example_masters.py",),
    ("docs/master-express.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/master-python.md", "python"): ("tests/node/test_example_masters.py", "tests/dev/test_walks.py"),
    ("docs/quickstart.md", "sh"): ("tests/dev/test_walks.py", "tests/unit/test_documentation.py"),
    ("docs/release.md", "sh"): ("tests/unit/test_documentation.py",),
    ("docs/troubleshooting.md", "sh"): (
        "tests/dev/test_walks.py",
        "tests/webhooks/test_handlers_of_the_docs.py",
        "tests/chart/test_docs_of_the_chart.py",
    ),
    ("docs/troubleshooting.md", "sql"): ("tests/dev/test_walks.py",),
    ("docs/webhooks.md", "javascript"): ("tests/webhooks/test_handlers_of_the_docs.py",),
    ("docs/webhooks.md", "python"): ("tests/webhooks/test_handlers_of_the_docs.py",),
    ("helm/chat-service/README.md", "sh"): (
        "tests/unit/test_documentation.py",
        "tests/chart/test_docs_of_the_chart.py",
    ),
    ("helm/chat-service/README.md", "yaml"): ("tests/chart/test_docs_of_the_chart.py",),
}
# What is no code.
TEXT = {"text"}


def test_every_block_of_code_is_run_by_a_test_that_names_its_page():
    found = {
        (name, block.language)
        for name in pages.names()
        for block in pages.blocks(name)
        if block.language not in TEXT
    }
    assert found == set(RUN_BY)
    for (name, _), tests in RUN_BY.items():
        for test in tests:
            assert name in (pages.ROOT / test).read_text(), f"{test} does not read {name}"


def commands(name):
    """Give the commands of a page's blocks, without comments and continuations."""
    for text in pages.code(name, "sh"):
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            if command := re.sub(r"\s+#.*|^#.*", "", line).strip():
                yield command


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", pages.page("Makefile"), re.MULTILINE))
    named = {
        target
        for name in pages.names()
        for target in re.findall(r"(?:^|`|\s{4})make ([a-z-]+)", pages.page(name), re.MULTILINE)
    }
    assert {"run", "test", "check", "docs", "lock"} <= named
    assert named - targets == set()


def test_every_command_of_the_service_is_understood():
    used = set()
    for name in pages.names():
        used |= {
            found.strip()
            for command in commands(name)
            for found in re.findall(r"(?:^|\s)(?:\.venv/bin/)?chat-service ((?:[\w-]|\s(?=\S))+)", command)
        }
        used |= {
            found.strip() for found in re.findall(r"`chat-service ((?:[\w-]|[ \n](?=\S))+)`", pages.page(name))
        }
    used = {" ".join(one.split()) for one in used}
    assert {"serve", "migrate", "config --check", "token anna", "dev --no-demo", "--version"} <= used
    program = (
        "import sys; from app.__main__ import _parser; [_parser().parse_args(a.split()) for a in sys.argv[1:]]"
    )
    parsed = sorted(used - {"--version"})
    done = subprocess.run(
        [sys.executable, "-c", program, *parsed], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_file_that_a_command_takes_exists():
    for name in pages.names():
        for command in commands(name):
            for path in re.findall(r"(?:--config |pytest (?!-)|helm (?:install chat|package) )(\S+)", command):
                assert (pages.ROOT / path).exists(), f"{name}: {path}"


def test_no_page_uses_a_tool_that_no_test_knows():
    known = {"make", "docker", "kind", "skaffold", "helm", "kubectl", "curl", "npm", "chat-service"}
    known |= {".venv/bin/chat-service", ".venv/bin/python", "node", "pre-commit", "export", "grep"}
    used = set()
    for name in pages.names():
        for command in commands(name):
            # What is given to one command alone stands before it; what a variable holds may be a command itself.
            is_variable = re.match(r'[A-Z_]+=(?:\S*$|"|\$\()', command)
            used.add("export" if is_variable else re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", command).split()[0])
    assert used - known == set()


def test_the_paths_that_the_pages_name_exist():
    for name in pages.names():
        text = pages.page(name)
        named = re.findall(r"`((?:app|tests|helm|k8s|benchmarks|scripts|docs|requirements)/[\w./-]*)`", text)
        # Decisions and architecture leave `app/` out.
        missing = [path for path in named if not (pages.ROOT / path).exists()]
        assert missing == [], name
    architecture = re.findall(
        r"`((?:rest|usecases|identity|messages|delivery|realtime)/[\w./-]+)`", pages.page("docs/architecture.md")
    )
    assert len(architecture) > 4
    assert [path for path in architecture if not (pages.ROOT / "app" / path).exists()] == []


def test_the_readme_is_short_and_says_how_to_begin():
    readme = pages.page("README.md")
    assert len(readme.encode()) <= README_LIMIT
    for word in ("make run", "make test", "docker compose up", "docs/demo.png", "3000", "4000", "4001", "4002"):
        assert word in readme
    required = [name for name, spec in specs().items() if spec.default is None and not spec.optional]
    assert [
        name for name in (*required, "WEBHOOK_URL", "WEBHOOK_SECRET", "ALLOWED_ORIGINS") if name not in readme
    ] == []


def test_the_table_of_settings_is_true():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", pages.page("docs/settings.md"), re.MULTILINE))
    expected = {}
    for name, spec in specs().items():
        if spec.default is None:
            expected[name] = "unset" if spec.optional else "required"
        else:
            expected[name] = f"`{spec.default}`" if spec.default else "empty"
    assert rows == expected


def test_every_setting_that_a_page_names_exists():
    known = {*specs(), *(f"{name}_FILE" for name, spec in specs().items() if spec.file_form), "DEMO_PORT"}
    prefixes = (
        "AUTH|INTERNAL|DATABASE|REDIS|WEBHOOK|HTTP|WS|WORKER|METRICS|ALLOWED|RATE|MAX|LARGE|DRAIN|EVENTS|LOG"
    )
    # Codes of errors, and variables of the examples.
    known |= {*STATUS, "WEBHOOK_ID", "INTERNAL_SECRET"}
    for name in pages.names():
        named = set(re.findall(rf"\b((?:{prefixes})_[A-Z_]*[A-Z])\b(?!_)(?!\*)", pages.page(name)))
        assert named - known == set(), name


def test_the_rooms_of_the_architecture_exist():
    text = pages.page("docs/architecture.md").split("## The packages")[1].split("## A message's way")[0]
    rooms = re.findall(r"(?:^|\s{2,})([a-z_]+(?:\.py|/))\s{2,}\S", text)
    assert len(rooms) > 15
    assert [room for room in rooms if not (pages.ROOT / "app" / room).exists()] == []
    packages = {folder.name for folder in (pages.ROOT / "app").iterdir() if (folder / "__init__.py").exists()}
    assert packages == {room.removesuffix("/") for room in rooms if room.endswith("/")} - {"app"}


@pytest.mark.parametrize("name", ["settings.md", "rest.md", "socket.md"])
def test_the_generated_pages_are_as_the_code_has_them(name):
    assert pages.page(f"docs/{name}") == generate_docs.pages()[name], "run `make docs`"


def slug(heading):
    """Give the anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower())


def anchors(name):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", pages.page(name), re.MULTILINE)}


@pytest.mark.parametrize("name", pages.names())
def test_every_link_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", pages.without_code(pages.page(name))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (pages.ROOT / name).parent.joinpath(path).resolve() if path else pages.ROOT / name
        assert found.exists(), target
        if name.startswith("docs/"):
            assert found.is_relative_to(pages.DOCS), f"{target} is not in the site"
        if anchor:
            assert anchor in anchors(f"{found.relative_to(pages.ROOT)}"), target


@pytest.mark.parametrize("name", pages.names())
def test_no_two_headings_of_a_page_have_one_anchor(name):
    headings = [slug(heading) for heading in re.findall(r"^##+ (.*)$", _without_blocks(name), re.MULTILINE)]
    if name != "CHANGELOG.md":
        assert sorted(headings) == sorted(set(headings))


def _without_blocks(name):
    return re.sub(r"^( *)```.*?^\1```$", "", pages.page(name), flags=re.MULTILINE | re.DOTALL)


def navigated(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from navigated(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_of_the_site_once():
    listed = list(navigated(SITE["nav"]))
    assert sorted(listed) == sorted(f"{file.relative_to(pages.DOCS)}" for file in pages.DOCS.rglob("*.md"))


def test_every_page_begins_with_its_title():
    for file in pages.DOCS.rglob("*.md"):
        first = re.sub(r"^<!--.*?-->\n\n", "", file.read_text(), flags=re.DOTALL)
        assert re.match(r"# \S.*\n", first), file
        assert len(re.findall(r"^# ", _without_blocks(f"{file.relative_to(pages.ROOT)}"), re.MULTILINE)) == 1


def test_every_decision_is_listed_and_says_context_choice_and_cost():
    listed = re.findall(
        r"^\| (\d{4}) \| \[(.*)\]\((\d{4}-[\w-]+\.md)\) \|$", pages.page("docs/decisions/index.md"), re.MULTILINE
    )
    files = sorted(file.name for file in (pages.DOCS / "decisions").glob("[0-9]*.md"))
    assert [file for _, _, file in listed] == files
    for number, (shown, title, file) in enumerate(listed, 1):
        assert int(shown) == int(file[:4]) == number
        text = pages.page(f"docs/decisions/{file}")
        assert text.startswith(f"# {title}\n")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Choice", "Cost"]


def test_every_alert_of_the_chart_is_in_the_operations_page():
    rules = (pages.ROOT / "helm/chat-service/templates/monitoring").glob("*.yaml")
    alerts = {name for file in rules for name in re.findall(r"alert: (\w+)", file.read_text())}
    rows = re.findall(r"^\| (`Chat.*?) \|", pages.page("docs/operations.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == alerts != set()


def test_no_page_names_a_package_registry():
    for name in (*pages.names(), "zensical.toml", ".pre-commit-config.yaml", "requirements/docs.txt"):
        assert not re.search(r"pypi\.org|npmjs\.|registry\.npm|files\.pythonhosted", pages.page(name)), name


def test_the_hooks_of_pre_commit_run_what_lint_runs():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", pages.page("Makefile"), re.MULTILINE)[1]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))
    entries = re.findall(r"entry: \.venv/bin/([\w-]+)", pages.page(".pre-commit-config.yaml"))
    assert set(entries) == tools
    assert "http" not in pages.page(".pre-commit-config.yaml")


def test_the_walk_of_a_feature_names_files_that_have_it():
    """CONTRIBUTING.md shows how reactions are made: each file that it names must have to do with them."""
    rows = re.findall(r"^\| (`app/.*?) \|", pages.page("CONTRIBUTING.md"), re.MULTILINE)
    for path in (path for row in rows for path in re.findall(r"`([\w/.-]+)`", row)):
        assert re.search("reaction|emoji", (pages.ROOT / path).read_text(), re.IGNORECASE), path
    assert len(rows) > 8
