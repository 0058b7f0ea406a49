"""The page that shows the REST API, as a browser on a phone has it."""

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture
async def docs(chromium, cluster):
    """Open the page; at the end nothing may have gone wrong on it, its policy included."""
    context = await chromium.new_context(viewport={"width": 390, "height": 844})
    page = await context.new_page()
    problems, asked = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(cluster[0].http + "/docs#sendMessage")
    await expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    yield page
    await context.close()
    assert problems == []
    assert asked == [cluster[0].http + path for path in ("/docs", "/openapi.json", "/asyncapi.json")]


async def test_the_page_shows_every_operation_event_and_schema(docs, http, cluster):
    async with http.get(cluster[0].http + "/openapi.json") as response:
        document = await response.json()
    async with http.get(cluster[0].http + "/asyncapi.json") as response:
        socket = await response.json()
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    names = document["components"]["schemas"].keys() | socket["components"]["schemas"].keys()
    shown = await docs.eval_on_selector_all("main article", "all => all.map(one => one.id)")
    assert set(shown) >= {*ids, *(f"schema-{name}" for name in names)}
    events = [name for name in socket["channels"]["socket"]["messages"] if not name.endswith("Answer")]
    assert {one for one in shown if one.startswith("event-")} == {f"event-{name}" for name in events}
    assert "undefined" not in await docs.locator("main").inner_text()
    assert await docs.evaluate("document.documentElement.scrollWidth") == 390
    await expect(docs.locator("#sendMessage")).to_be_in_viewport()


async def test_its_links_lead_somewhere(docs):
    targets = await docs.eval_on_selector_all("a[href^='#']", "all => all.map(one => one.hash.slice(1))")
    missing = "names => names.filter(name => !document.getElementById(name))"
    assert await docs.evaluate(missing, targets) == []


async def test_the_filter_leaves_what_it_finds_until_a_link_leads_elsewhere(docs):
    await docs.get_by_text("Contents", exact=True).click()
    await docs.get_by_label("Filter").fill("emoji reactions delete")
    await expect(docs.locator("#removeReaction")).to_be_visible()
    await expect(docs.locator("#sendMessage")).to_be_hidden()
    await docs.evaluate("location.hash = '#createConversation'")
    await expect(docs.locator("#createConversation")).to_be_in_viewport()
    await expect(docs.locator("#sendMessage")).to_be_visible()
