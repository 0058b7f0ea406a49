"""`chat-service dev` in a process of its own, and windows of headless Chromium that look at its page."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    async_playwright,
    expect,
)
from pods import free_port

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1100, "height": 760}
# What Chromium itself writes when there is no network; nothing else belongs on the console.
NETWORK = ("net::ERR_INTERNET_DISCONNECTED", "net::ERR_NETWORK_CHANGED")

expect.set_options(timeout=10_000)


@dataclass
class Window:
    """One person's browser, with its page and what went wrong there."""

    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)

    def of(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    async def log_in(self, name: str) -> None:
        await self.of("login-name").fill(name)
        await self.of("login-button").click()
        await self.is_in("connected")

    async def is_in(self, state: str) -> None:
        await expect(self.of("connection-state")).to_have_attribute("data-state", state)

    async def start(self, names: str, title: str | None = None) -> None:
        await self.of("new-conversation-names").fill(names)
        if title is not None:
            await self.of("new-conversation-title").fill(title)
        await self.of("new-conversation-button").click()
        await expect(self.of("composer")).to_be_focused()

    async def open(self, title: str) -> None:
        await self.of("conversation-item").filter(has_text=title).click()
        await expect(self.of("thread-title")).to_have_text(title)

    async def say(self, content: str) -> None:
        await self.of("composer").fill(content)
        await self.of("send-button").click()

    async def menu(self, content: str) -> None:
        """Open the menu of a message."""
        message = self.of("message").filter(has_text=content)
        await message.hover()
        await message.get_by_test_id("message-menu-button").click()
        await expect(self.of("message-menu")).to_be_visible()

    async def shows(self, *contents: str) -> None:
        """Expect exactly these messages, once each, in this order, and none of them on its way."""
        await expect(self.of("message-content")).to_have_text(list(contents))
        await expect(self.page.locator("[data-testid=message]:not([data-status=sent])")).to_have_count(0)

    def listen(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(known in message.text for known in NETWORK):
            self.problems.append(message.text)


@pytest.fixture(scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run everything as a newcomer does; gives the address of the page."""
    folder = tmp_path_factory.mktemp("dev")
    port = free_port()
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    env |= {name: str(free_port()) for name in ("HTTP_PORT", "WS_PORT", "WORKER_PORT")}
    env["DEMO_PORT"] = str(port)
    # A test says in a second what people say in minutes.
    env["RATE_LIMIT_SEND"] = "0"
    log = folder / "dev.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "dev", "--ephemeral",
            cwd=folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        assert await _runs(process), log.read_text()
        yield f"http://localhost:{port}"
    finally:
        await _stop(process)
    assert process.returncode == 0
    assert log.read_text() == ""


async def _runs(process: asyncio.subprocess.Process) -> bool:
    assert process.stdout is not None
    async with asyncio.timeout(START_TIMEOUT):
        async for line in process.stdout:
            if line.startswith(b"Open http"):
                return True
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.communicate()
    except TimeoutError:
        # Its session holds the databases too.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("These tests need Chromium: install it, or set CHROMIUM to its path.", pytrace=False)
    async with async_playwright() as playwright:
        browser, problem = None, ""
        try:
            browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        except Error as error:
            problem = error.message
        if browser is None:
            pytest.fail(f"The Chromium {path} did not start: {problem}", pytrace=False)
        yield browser
        await browser.close()


@pytest.fixture
async def window(chromium: Browser, demo: str) -> AsyncIterator[Callable[..., Awaitable[Window]]]:
    """Open a window on the page, maybe as somebody who logs in; at the end none may have had a problem."""
    opened: list[Window] = []

    async def open_window(name: str | None = None, **options: object) -> Window:
        context = await chromium.new_context(**{"viewport": DESKTOP, **options})
        made = Window(context, await context.new_page())
        opened.append(made)
        made.listen()
        await made.page.goto(demo)
        if name is not None:
            await made.log_in(name)
        return made

    try:
        yield open_window
    finally:
        for made in opened:
            await made.context.close()
    assert [problem for made in opened for problem in made.problems] == []
