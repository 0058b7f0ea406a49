"""What people see who talk on the page of `chat-service dev`."""

import asyncio
import json
import re

import pytest
from people import PHONE, person
from playwright.async_api import WebSocketRoute, expect

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=alert(1)> & <b>bold</b>"


async def test_two_people_talk(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(anna_name), await window(ben_name)
    await expect(anna.of("me-name")).to_have_text(anna_name)
    await expect(ben.of("no-conversations")).to_be_visible()
    await anna.start(ben_name)
    await expect(anna.of("thread-title")).to_have_text(ben_name)
    await anna.say("Hello Ben")
    await ben.open(anna_name)
    await ben.shows("Hello Ben")
    await ben.say("Hello Anna")
    await anna.shows("Hello Ben", "Hello Anna")
    await anna.say(MARKUP)
    for talker in (anna, ben):
        await talker.shows("Hello Ben", "Hello Anna", MARKUP)
    for talker, own in ((anna, ["true", "false", "true"]), (ben, ["false", "true", "false"])):
        messages = await talker.of("message").all()
        assert [await message.get_attribute("data-own") for message in messages] == own
        log = await talker.of("message-log").bounding_box()
        for message, is_own in zip(messages, own, strict=True):
            bubble = await message.get_by_test_id("message-content").bounding_box()
            left, right = bubble["x"] - log["x"], log["x"] + log["width"] - bubble["x"] - bubble["width"]
            assert (left > right) == (is_own == "true")


async def test_what_two_people_say_at_once_comes_in_one_order(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(anna_name), await window(ben_name)
    await anna.start(ben_name)
    await ben.open(anna_name)

    async def say_ten(talker, name):
        for number in range(10):
            await talker.say(f"{name} {number}")

    await asyncio.gather(say_ten(anna, "Anna"), say_ten(ben, "Ben"))
    for talker in (anna, ben):
        await expect(talker.page.locator("[data-testid=message][data-status=sent]")).to_have_count(20)
    contents = await anna.of("message-content").all_text_contents()
    assert [one for one in contents if one.startswith("Anna")] == [f"Anna {number}" for number in range(10)]
    assert [one for one in contents if one.startswith("Ben")] == [f"Ben {number}" for number in range(10)]
    await ben.shows(*contents)


async def test_three_people_talk_in_a_group(window):
    names = [person("Anna"), person("Ben"), person("Cleo")]
    anna, ben, cleo = windows = [await window(name) for name in names]
    stranger = await window(person("Dora"))
    await anna.start(f"{names[1]}, {names[2]}", title="Lunch")
    for member in (ben, cleo):
        await member.open("Lunch")
    said = []
    for member, name in zip(windows, names, strict=True):
        said.append(f"{name} is in")
        await member.say(said[-1])
        for listener in windows:
            await listener.shows(*said)
    await expect(cleo.page.locator(".author:not(.visually-hidden)")).to_have_text(names[:2])
    await expect(cleo.of("thread-people")).to_contain_text("You")
    await expect(stranger.of("no-conversations")).to_be_visible()
    assert await stranger.of("conversation-item").count() == 0


async def test_one_person_has_two_windows(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    desk, phone, ben = await window(anna_name), await window(anna_name, **PHONE), await window(ben_name)
    await desk.start(ben_name)
    await desk.say("From the desk")
    await phone.open(ben_name)
    await phone.say("From the phone")
    await ben.open(anna_name)
    for talker in (desk, phone, ben):
        await talker.shows("From the desk", "From the phone")
    for talker, own in ((desk, "true"), (phone, "true"), (ben, "false")):
        await expect(talker.page.locator(f"[data-testid=message][data-own={own}]")).to_have_count(2)
    await phone.of("back-button").click()
    await expect(phone.of("conversation-item")).to_be_visible()
    await expect(phone.of("composer")).to_be_hidden()


async def test_what_was_not_seen_is_marked(window):
    anna_name, ben_name, cleo_name = person("Anna"), person("Ben"), person("Cleo")
    anna, ben, cleo = await window(anna_name), await window(ben_name), await window(cleo_name)
    await ben.start(anna_name)
    await anna.open(ben_name)
    await cleo.start(anna_name)
    await cleo.say("Anna, are you there?")
    item = anna.of("conversation-item").filter(has_text=cleo_name)
    await expect(item).to_have_attribute("data-unread", "1")
    await expect(anna.of("conversation-item").first).to_contain_text("Anna, are you there?")
    await anna.open(cleo_name)
    await expect(item).to_have_attribute("data-unread", "0")
    await anna.shows("Anna, are you there?")


async def test_the_history_is_loaded_page_by_page(window, demo, http):
    anna_name, ben_name = person("Anna"), person("Ben")
    said = [f"Message {number}" for number in range(1, 121)]
    await _talk_before(http, demo, anna_name, ben_name, said)
    anna, ben = await window(anna_name), await window(ben_name)
    await anna.open(ben_name)
    await anna.shows(*said[-50:])
    await expect(anna.of("message-content").last).to_be_in_viewport()
    # Not a click of the mouse, which would first scroll there: that loads as well, and is what comes after.
    await anna.of("load-older").dispatch_event("click")
    await anna.shows(*said[-100:])
    log = anna.of("message-log")
    await log.evaluate("log => { log.scrollTop = 0; }")
    await anna.shows(*said)
    await expect(anna.of("load-older")).to_be_hidden()
    # Who reads what is old stays there, whatever comes.
    place = await log.evaluate("log => log.scrollTop")
    assert place > 0
    await ben.open(anna_name)
    await ben.say("Something new")
    await anna.shows(*said, "Something new")
    assert await log.evaluate("log => log.scrollTop") == place


async def _talk_before(http, demo, name, other, said):
    async def login(who):
        async with http.post(f"{demo}/login", data=json.dumps({"name": who})) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    me, them = await login(name), await login(other)
    headers = {"Authorization": f"Bearer {me['token']}"}
    wanted = {"type": "direct", "participantIds": [them["userId"]]}
    async with http.post(f"{demo}/api/conversations", json=wanted, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        path = f"{demo}/api/conversations/{(await answer.json())['id']}/messages"
    for content in said:
        async with http.post(path, json={"content": content}, headers=headers) as answer:
            assert answer.status == 201, await answer.text()


async def test_a_reload_keeps_the_login_and_a_logout_ends_it(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(anna_name), await window(ben_name)
    await anna.start(ben_name)
    await anna.say("Before the reload")
    await anna.shows("Before the reload")
    await anna.page.reload()
    await expect(anna.of("me-name")).to_have_text(anna_name)
    await expect(anna.of("thread-title")).to_have_text(ben_name)
    await anna.shows("Before the reload")
    await anna.say("After it")
    await ben.open(anna_name)
    await ben.shows("Before the reload", "After it")
    await anna.of("logout-button").click()
    await expect(anna.of("login-name")).to_be_focused()
    await anna.page.reload()
    await expect(anna.of("login-name")).to_have_value("")
    await anna.log_in(person("Dora"))
    await expect(anna.of("no-conversations")).to_be_visible()


async def test_what_is_said_without_a_network_comes_once_when_it_is_back(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(anna_name), await window(ben_name)
    await anna.start(ben_name)
    await anna.say("Before")
    await ben.open(anna_name)
    await ben.shows("Before")
    await ben.context.set_offline(True)
    await ben.is_in("offline")
    await ben.say("From the tunnel")
    await ben.say("Still in it")
    await expect(ben.page.locator("[data-testid=message][data-status=waiting]")).to_have_count(2)
    await anna.say("Where are you?")
    await anna.shows("Before", "Where are you?")
    await ben.context.set_offline(False)
    await ben.is_in("connected")
    for talker in (anna, ben):
        await talker.shows("Before", "Where are you?", "From the tunnel", "Still in it")
    await anna.say("Welcome back")
    await ben.shows("Before", "Where are you?", "From the tunnel", "Still in it", "Welcome back")


async def test_a_message_whose_acknowledgement_was_lost_is_there_once(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(), await window(ben_name)
    lost = []

    async def lose_the_first(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        async def hand_on(packet: str | bytes) -> None:
            about_a_message = re.match(r'43\d*\[|42\["message:new"', str(packet))
            if not about_a_message or "--complete" in lost:
                socket.send(packet)
            elif not lost:
                lost.append(packet)
                await server.close()
                await socket.close(code=3000)

        server.on_message(hand_on)
        if lost:
            lost.append("--complete")

    await anna.page.route_web_socket(re.compile("/socket.io/"), lose_the_first)
    await anna.page.reload()
    await anna.log_in(anna_name)
    await anna.start(ben_name)
    await anna.say("Said once")
    await ben.open(anna_name)
    await anna.is_in("connected")
    await anna.shows("Said once")
    await ben.shows("Said once")
    await ben.say("Heard once")
    for talker in (anna, ben):
        await talker.shows("Said once", "Heard once")
    assert len(lost) == 2


async def test_a_name_that_is_none_is_refused_with_a_reason(window):
    anna_name = person("Anna")
    anna = await window()
    for wrong in ("?!", "   ", "-anna", "Anna, Ben"):
        await anna.of("login-name").fill(wrong)
        await anna.of("login-button").click()
        await expect(anna.of("login-error")).to_contain_text("is no name")
        await expect(anna.of("me-name")).to_be_hidden()
    await anna.log_in(anna_name)
    for wrong, reason in ((anna_name, "somebody else"), (" , ", "somebody else"), ("Ben; Cleo", "is no name")):
        await anna.of("new-conversation-names").fill(wrong)
        await anna.of("new-conversation-button").click()
        await expect(anna.of("new-conversation-error")).to_contain_text(reason)
    await anna.of("new-conversation-names").press_sequentially("x")
    await expect(anna.of("new-conversation-error")).to_be_empty()
    assert await anna.of("conversation-item").count() == 0


async def test_the_keyboard_is_enough(window):
    anna_name, ben_name = person("Anna"), person("Ben")
    anna, ben = await window(), await window(ben_name)
    await expect(anna.of("login-name")).to_be_focused()
    await anna.page.keyboard.type(anna_name)
    await anna.page.keyboard.press("Enter")
    await anna.is_in("connected")
    await _tab_to(anna, "new-conversation-names")
    await anna.page.keyboard.type(ben_name)
    await anna.page.keyboard.press("Enter")
    await expect(anna.of("composer")).to_be_focused()
    await anna.page.keyboard.type("First line")
    await anna.page.keyboard.press("Shift+Enter")
    await anna.page.keyboard.type("second line")
    await anna.page.keyboard.press("Enter")
    await anna.shows("First line\nsecond line")
    await expect(anna.of("composer")).to_have_value("")
    await expect(ben.of("conversation-item")).to_be_visible()
    await _tab_to(ben, "conversation-item")
    await ben.page.keyboard.press("Enter")
    await expect(ben.of("composer")).to_be_focused()
    await ben.page.keyboard.type("Two lines, I see")
    await ben.page.keyboard.press("Enter")
    for talker in (anna, ben):
        await talker.shows("First line\nsecond line", "Two lines, I see")


async def _tab_to(talker, test_id):
    for _ in range(10):
        await talker.page.keyboard.press("Tab")
        if await talker.page.evaluate("document.activeElement.dataset.testid") == test_id:
            return
    raise AssertionError(f"no {test_id} within ten presses of Tab")


async def test_the_page_may_load_nothing_from_elsewhere(window):
    anna = await window()
    answer = await anna.page.reload()
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; connect-src 'self' ws://")
    loaded = await anna.page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert loaded
    assert [name for name in loaded if not name.startswith(anna.page.url)] == []
    # Were the policy not in force, this would run.
    await anna.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { text: 'x = 1' }))"
    )
    assert await anna.page.evaluate("typeof x") == "undefined"
    assert len(anna.problems) == 1
    assert "Content Security Policy" in anna.problems.pop()
