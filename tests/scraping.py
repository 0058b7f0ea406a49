"""What a process tells Prometheus, as tests read it."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[object, ...], float]


async def scrape(http: aiohttp.ClientSession, address: str) -> str:
    async with http.get(f"{address}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await answer.text()


def read(text: str) -> Series:
    """Give each series by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def series(http: aiohttp.ClientSession, address: str) -> Series:
    return read(await scrape(http, address))
