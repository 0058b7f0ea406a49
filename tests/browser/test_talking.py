"""What two people see of each other on the page, whatever happens to their connections."""

import asyncio
import hashlib
import hmac
import json
import re
import time

import jwt
import pytest
from people import PHONE, person
from playwright.async_api import expect

pytestmark = pytest.mark.browser

# What `chat-service dev` takes where none are set.
SECRET = "development-only-secret-that-signs-user-tokens"
WEBHOOK_SECRET = "development-only-secret-that-signs-webhooks"


@pytest.fixture
async def talkers(window):
    """Give two people who look at their conversation, one of them on a phone."""
    names = person("Anna"), person("Ben")
    anna, ben = await window(names[0]), await window(names[1], **PHONE)
    await anna.start(names[1])
    await ben.open(names[0])
    return anna, ben


async def test_typing_is_seen_while_it_lasts(talkers):
    anna, ben = talkers
    await anna.of("composer").press_sequentially("Hel")
    await expect(ben.of("typing")).to_contain_text("is typing")
    await expect(anna.of("typing")).to_be_empty()
    await anna.of("composer").fill("")
    await expect(ben.of("typing")).to_be_empty()
    await anna.of("composer").press_sequentially("Hello")
    await expect(ben.of("typing")).to_contain_text("is typing")
    await anna.of("send-button").click()
    await ben.shows("Hello")
    await expect(ben.of("typing")).to_be_empty()


async def test_presence_is_seen(talkers):
    anna, ben = talkers
    await expect(ben.of("thread-people")).to_have_text("Online")
    await expect(anna.of("conversation-item")).to_have_attribute("data-online", "true")
    await ben.of("logout-button").click()
    await expect(anna.of("thread-people")).to_have_text("Offline")
    await expect(anna.of("conversation-item")).to_have_attribute("data-online", "false")


async def test_reactions_come_and_go(talkers):
    anna, ben = talkers
    await anna.say("Cake?")
    await ben.shows("Cake?")
    await ben.menu("Cake?")
    await ben.of("quick-reaction").first.click()
    for talker in talkers:
        await expect(talker.of("reaction")).to_have_text("👍 1")
    await expect(ben.of("reaction")).to_have_attribute("aria-pressed", "true")
    await anna.of("reaction").click()
    for talker in talkers:
        await expect(talker.of("reaction")).to_have_text("👍 2")
    await anna.of("reaction").click()
    await ben.of("reaction").click()
    for talker in talkers:
        await expect(talker.of("reaction")).to_have_count(0)


async def test_a_message_is_edited_and_deleted_by_its_author_alone(talkers):
    anna, ben = talkers
    await anna.say("See you at noon")
    await ben.shows("See you at noon")
    await ben.menu("See you at noon")
    await expect(ben.of("edit-button")).to_have_count(0)
    await expect(ben.of("delete-button")).to_have_count(0)
    await ben.page.keyboard.press("Escape")
    await anna.of("composer").fill("A draft")
    await anna.menu("See you at noon")
    await anna.of("edit-button").click()
    await expect(anna.of("composer")).to_have_value("See you at noon")
    await anna.of("composer").fill("See you at one")
    await anna.page.keyboard.press("Enter")
    for talker in talkers:
        await talker.shows("See you at one")
        await expect(talker.of("message-meta")).to_contain_text("edited")
    await expect(anna.of("composer")).to_have_value("A draft")
    await anna.menu("See you at one")
    await anna.of("delete-button").click()
    for talker in talkers:
        await talker.shows("This message was deleted")
    await expect(anna.of("conversation-item")).to_contain_text("This message was deleted")


async def test_receipts_and_counts_of_what_is_unread(talkers):
    anna, ben = talkers
    await anna.say("Read this")
    await ben.shows("Read this")
    await expect(anna.of("message-meta")).to_contain_text("Read")
    await ben.of("back-button").click()
    await anna.say("And this")
    await anna.say("And that")
    item = ben.of("conversation-item")
    await expect(item).to_have_attribute("data-unread", "2")
    await expect(ben.page).to_have_title(re.compile(r"^\(1\) Ben"))
    await expect(anna.of("message-meta").last).not_to_contain_text("Read")
    await item.click()
    await expect(anna.of("message-meta").last).to_contain_text("Read")
    await expect(item).to_have_attribute("data-unread", "0")
    await ben.page.reload()
    await ben.shows("Read this", "And this", "And that")
    await expect(item).to_have_attribute("data-unread", "0")


async def test_a_file_goes_along_and_comes_back(talkers):
    anna, ben = talkers
    files = [{"name": "menu.txt", "mimeType": "text/plain", "buffer": b"soup"} for _ in range(2)]
    await anna.of("attach-input").set_input_files(files)
    await expect(anna.of("attached").get_by_role("listitem")).to_have_count(2)
    await anna.of("attached-remove").first.click()
    await anna.of("send-button").click()
    await expect(ben.of("attachment")).to_have_text(["menu.txt"])
    async with ben.page.expect_download() as downloading:
        await ben.of("attachment").click()
    download = await downloading.value
    assert download.suggested_filename == "menu.txt"
    with open(await download.path(), "rb") as file:  # noqa: ASYNC230, PTH123 - four bytes, in a test
        assert file.read() == b"soup"


async def test_nothing_is_lost_or_doubled_over_a_time_without_network(talkers):
    anna, ben = talkers
    await anna.say("One")
    await anna.say("Two")
    await ben.shows("One", "Two")
    await ben.context.set_offline(True)
    await ben.is_in("offline")
    await ben.say("From the tunnel")
    said = ["One", "Two", *(f"Missed {number}" for number in range(30))]
    for content in said[2:]:
        await anna.say(content)
    await anna.shows(*said)
    await anna.menu("Two")
    await anna.of("quick-reaction").nth(1).click()
    await anna.menu("One")
    await anna.of("delete-button").click()
    await anna.shows("This message was deleted", *said[1:])
    await expect(ben.of("message-content").first).to_have_text("One")
    await ben.context.set_offline(False)
    await ben.is_in("connected")
    for talker in talkers:
        await talker.shows("This message was deleted", *said[1:], "From the tunnel")
        await expect(talker.of("reaction")).to_have_text("❤️ 1")


async def test_the_page_catches_up_when_the_other_side_ends_the_connection(window):
    """The network is there all the time: only the socket goes, and the state says what happens."""
    names = person("Anna"), person("Ben")
    anna, ben = await window(names[0]), await window()
    sockets = []

    async def keep(socket):
        sockets.append((socket, socket.connect_to_server()))

    await ben.page.route_web_socket(re.compile("/socket.io/"), keep)
    await ben.page.reload()
    await ben.log_in(names[1])
    await anna.start(names[1])
    await ben.open(names[0])
    await ben.page.evaluate(
        """() => {
          window.states = [];
          const state = document.getElementById('connection');
          new MutationObserver(() => states.push(state.dataset.state)).observe(state, { attributes: true });
        }"""
    )
    page, server = sockets.pop()
    await server.close()
    await page.close(code=3000)
    await anna.say("While you were away")
    await ben.shows("While you were away")
    await ben.is_in("connected")
    assert await ben.page.evaluate("states") == ["offline", "connecting", "syncing", "connected"]


async def test_the_token_is_renewed_before_it_expires(window):
    anna = await window()
    expiry = int(time.time()) + 6
    logins, refreshes = [], []

    async def shorten_the_first(route):
        answer = await route.fetch()
        login = await answer.json()
        if not logins:
            claims = {**jwt.decode(login["token"], options={"verify_signature": False}), "exp": expiry}
            login["token"] = jwt.encode(claims, SECRET, algorithm="HS256")
        logins.append(login)
        await route.fulfill(response=answer, json=login)

    async def watch(socket):
        server = socket.connect_to_server()

        def hand_on(packet):
            if "auth:refresh" in str(packet):
                refreshes.append(time.time())
            server.send(packet)

        socket.on_message(hand_on)

    await anna.page.route("**/login", shorten_the_first)
    await anna.page.route_web_socket(re.compile("/socket.io/"), watch)
    await anna.page.reload()
    await anna.log_in(person("Anna"))
    await anna.page.evaluate(
        """() => {
          window.left = false;
          const state = document.getElementById('connection');
          new MutationObserver(() => { left = true; }).observe(state, { attributes: true });
        }"""
    )
    # Past the end of the first token, somebody can still be talked with.
    await anna.page.wait_for_function("expiry => Date.now() > expiry", arg=(expiry + 2) * 1000)
    await anna.start(person("Ben"))
    await anna.say("Still here")
    await anna.shows("Still here")
    assert len(logins) == 2
    assert [at < expiry for at in refreshes] == [True]
    assert await anna.page.evaluate("left") is False


async def test_messages_and_their_menu_are_reached_by_the_keyboard(talkers):
    anna, ben = talkers
    await anna.say("First")
    await anna.say("Second")
    await ben.shows("First", "Second")
    keyboard = anna.page.keyboard
    await anna.of("message-log").focus()
    for key in ("ArrowUp", "ArrowUp", "Enter"):
        await keyboard.press(key)
    await expect(anna.of("quick-reaction").first).to_be_focused()
    await keyboard.press("Enter")
    for talker in talkers:
        await expect(talker.page.locator("[data-testid=message]").first).to_contain_text("👍 1")
    await expect(anna.of("message-menu-button").first).to_be_focused()
    await keyboard.press("Enter")
    await keyboard.press("Escape")
    await expect(anna.of("message-menu")).to_be_hidden()
    await expect(anna.of("message-menu-button").first).to_be_focused()
    # The last message of one's own is a key away from an empty composer.
    await anna.of("composer").focus()
    await keyboard.press("ArrowUp")
    await expect(anna.of("composer")).to_have_value("Second")
    await keyboard.type(", edited")
    await keyboard.press("Enter")
    await ben.shows("First", "Second, edited")


async def test_who_was_away_is_told_who_wrote(window, demo, http):
    """The webhook of a new message, as the chat service sends it to the master."""
    names = person("Anna"), person("Ben")
    anna = await window(names[0])
    await anna.start(names[1])
    await anna.say("Call me")
    await anna.shows("Call me")
    data = {
        "messageId": await anna.of("message").get_attribute("data-message-id"),
        "conversationId": await anna.of("conversation-item").get_attribute("data-conversation-id"),
        "senderId": await anna.of("message").get_attribute("data-sender-id"),
        "content": "Call me",
    }
    body = json.dumps({"event": "message.created", "timestamp": "", "signature": "", "data": data}).encode()
    signature = "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Webhook-Signature": signature}
    async with http.post(f"{demo}/webhooks/chat", data=body, headers=headers) as response:
        assert response.status == 200
    ben = await window(names[1])
    await expect(ben.of("notice")).to_contain_text(f"While you were away you got messages from {names[0]}")
    await ben.page.reload()
    await ben.is_in("connected")
    await expect(ben.of("notice")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_hinders_who_cannot_see_it(window, node_modules, scheme):
    """The rules of axe (https://github.com/dequelabs/axe-core), on each view."""
    axe = await asyncio.to_thread((node_modules / "axe-core" / "axe.min.js").read_text)
    names = person("Anna"), person("Ben")
    anna = await window(color_scheme=scheme)

    async def is_clean():
        await anna.page.evaluate(axe)
        found = await anna.page.evaluate("axe.run()")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []

    await is_clean()
    await anna.log_in(names[0])
    await is_clean()
    await anna.start(names[1])
    await anna.of("attach-input").set_input_files([{"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}])
    await expect(anna.of("attached")).to_be_visible()
    await anna.say("Hello")
    await anna.shows("Hello")
    await anna.menu("Hello")
    await is_clean()
    await anna.of("quick-reaction").first.click()
    await expect(anna.of("reaction")).to_be_visible()
    await anna.menu("Hello")
    await anna.of("edit-button").click()
    await is_clean()
    await anna.context.set_offline(True)
    await anna.is_in("offline")
    await anna.of("edit-cancel").click()
    await anna.say("Later")
    await is_clean()
