"""The pictures of the page: one for the README, and others to be looked at.

They go into the folder SCREENSHOTS where that is set.
"""

import asyncio
import base64
import os
from pathlib import Path

import pytest
from people import PHONE, person
from playwright.async_api import expect

pytestmark = pytest.mark.browser

TALK = [
    ("Anna", "Are you coming to the market on Saturday?"),
    ("Ben", "Yes, if the rain holds off."),
    ("Ben", "When do you want to meet?"),
    ("Anna", "Ten, at the bridge. The good bread goes early."),
    ("Ben", "Ten it is. Shall I bring the big basket?"),
    ("Anna", "Please do, I promised Zoë tomatoes."),
]
LIST = {"name": "shopping-list.txt", "mimeType": "text/plain", "buffer": b"bread, tomatoes"}
DESK = {"viewport": {"width": 860, "height": 680}, "device_scale_factor": 2}


@pytest.fixture
def keep(tmp_path):
    """Keep a picture under a name."""

    async def write(name, picture):
        assert picture.startswith(b"\x89PNG")
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread((folder / name).write_bytes, picture)

    return write


async def talk(anna, ben):
    """Let two people talk, with all that the page can show."""
    people = {"Anna": anna, "Ben": ben}
    for number, (name, content) in enumerate(TALK, 1):
        await people[name].of("composer").fill(content)
        await people[name].of("send-button").click()
        if number == 1:
            await ben.open("Anna")
        for talker in people.values():
            await talker.shows(*(said for _, said in TALK[:number]))
    await ben.menu("The good bread")
    await ben.of("quick-reaction").nth(1).click()
    await expect(anna.of("reaction")).to_have_text("❤️ 1")
    await anna.of("attach-input").set_input_files([LIST])
    await anna.of("composer").fill("Here is my list.")
    await anna.of("send-button").click()
    await expect(ben.of("attachment")).to_be_visible()
    await expect(anna.of("message-meta").last).to_contain_text("Read")
    await ben.of("composer").press_sequentially("Got it, see")
    await expect(anna.of("typing")).to_contain_text("Ben is typing")


async def test_the_picture_of_the_readme(window, chromium, keep):
    """Draw demo.png: one on a desk, one on a phone."""
    anna = await window("Anna", **DESK)
    ben = await window("Ben", **{**PHONE, "viewport": {"width": 340, "height": 680}, "device_scale_factor": 2})
    zoe = await window("Zoë")
    await zoe.start("Anna")
    await zoe.say("Did you get tomatoes?")
    await zoe.start("Anna, Ben", title="Market")
    await zoe.say("Who is cooking on Sunday?")
    await anna.start("Ben")
    await talk(anna, ben)
    context = await chromium.new_context(viewport={"width": 1280, "height": 720}, device_scale_factor=2)
    try:
        page = await context.new_page()
        await page.set_content(await _side_by_side(anna, ben))
        picture = await page.screenshot()
    finally:
        await context.close()
    assert len(picture) < 400_000
    await keep("demo.png", picture)


async def _side_by_side(*talkers):
    shots = [base64.b64encode(await talker.page.screenshot()).decode() for talker in talkers]
    images = "".join(f"<img src='data:image/png;base64,{shot}'>" for shot in shots)
    style = "body { margin: 20px 30px; display: flex; gap: 20px; background: #dfe2ec; } "
    style += "img { height: 680px; border-radius: 14px; box-shadow: 0 0 0 1px #cfd3e2; }"
    return f"<style>{style}</style>{images}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pictures_to_be_looked_at(window, keep, scheme):
    """Draw each view on a desk and on a phone; nothing may be wider than its window."""
    anna = await window(color_scheme=scheme)
    await keep(f"{scheme}-desk-login.png", await anna.page.screenshot())
    anna_name, ben_name = person("Anna"), person("Ben")
    await anna.log_in(anna_name)
    ben = await window(ben_name, color_scheme=scheme, **PHONE)
    await keep(f"{scheme}-phone-empty.png", await ben.page.screenshot())
    await anna.start(f"{ben_name}, Cleo", title="Lunch in the garden, with everybody who has time")
    await anna.say("A long word: " + "ab" * 60)
    await keep(f"{scheme}-phone-list.png", await ben.page.screenshot())
    await ben.of("conversation-item").click()
    await ben.say("Fine with me, and I bring the salad that everybody liked so much the last time.")
    await anna.menu("Fine with me")
    await keep(f"{scheme}-desk-menu.png", await anna.page.screenshot())
    await anna.of("quick-reaction").nth(1).click()
    await expect(ben.of("reaction")).to_be_visible()
    await ben.menu("Fine with me")
    await keep(f"{scheme}-phone-menu.png", await ben.page.screenshot())
    await ben.of("edit-button").click()
    await keep(f"{scheme}-phone-edit.png", await ben.page.screenshot())
    await ben.of("edit-cancel").click()
    await ben.context.set_offline(True)
    await ben.is_in("offline")
    await ben.say("Sent in the tunnel")
    await keep(f"{scheme}-phone-offline.png", await ben.page.screenshot())
    # As narrow as a page may get (WCAG 2.2, 1.4.10).
    await ben.page.set_viewport_size({"width": 320, "height": 640})
    box = await ben.of("logout-button").bounding_box()
    assert box["x"] + box["width"] <= 320
    await keep(f"{scheme}-narrow-offline.png", await ben.page.screenshot())
    for talker in (anna, ben):
        width = talker.page.viewport_size["width"]
        assert await talker.page.evaluate("document.documentElement.scrollWidth") == width
