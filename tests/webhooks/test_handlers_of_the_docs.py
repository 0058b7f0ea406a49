"""What docs/webhooks.md and docs/troubleshooting.md say about webhooks, run as it stands there."""

import asyncio
import hashlib
import hmac
import json
import re
import textwrap
from types import SimpleNamespace

import pages
import pytest
from multidict import CIMultiDict
from npm import NODE
from pods import INTERNAL_SECRET
from receiver import WEBHOOK_SECRET, answering

# A handler with the lines of the page, for each webhook on a line of its input: what it answered.
OF_EXPRESS = """
import crypto from 'node:crypto';
import readline from 'node:readline';

const verify = (req, res) => {
%s
  return res.status(200).end();
};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  const res = { status: (code) => ({ end: () => code }) };
  console.log(verify({ headers, body: JSON.parse(body) }, res));
}
"""
# The same in Python.
OF_PYTHON = """
def verify(request, body):
%s
        return 401
    return 200
"""


async def by_express(cases):
    (lines,) = pages.code("docs/webhooks.md", "javascript")
    process = await asyncio.create_subprocess_exec(
        *(NODE, "--input-type=module", "--eval", OF_EXPRESS % textwrap.indent(lines, "  ")),
        env={"WEBHOOK_SECRET": WEBHOOK_SECRET},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    given = "".join(json.dumps({"headers": headers, "body": body.decode()}) + "\n" for headers, body in cases)
    async with asyncio.timeout(20):
        out, _ = await process.communicate(given.encode())
    return [int(line) for line in out.split()]


async def by_python(cases):
    (lines,) = pages.code("docs/webhooks.md", "python")
    names = {"hmac": hmac, "hashlib": hashlib, "WEBHOOK_SECRET": WEBHOOK_SECRET}
    exec(OF_PYTHON % textwrap.indent(lines, "    "), names)
    requests = [SimpleNamespace(headers=CIMultiDict(headers)) for headers, _ in cases]
    return [names["verify"](request, body) for request, (_, body) in zip(requests, cases, strict=True)]


@pytest.mark.parametrize("handler", [by_express, by_python])
async def test_the_handlers_accept_what_the_worker_signs_and_nothing_else(stack, handler):
    async with stack() as found:
        anna = found.user("anna")
        await anna.say(await anna.group(), 'Grüße 👋 "\u2028\\')
        (one,) = await found.receiver.wait_for("message.created")
        signature = one.headers["X-Webhook-Signature"]
        right = ({"x-webhook-signature": signature}, one.body)
        wrong = [
            ({"x-webhook-signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")}, one.body),
            ({"x-webhook-signature": "sha256=é"}, one.body),
            ({}, one.body),
            (right[0], one.body.replace(b"Gr", b"gr")),
        ]
        assert await handler([right, *wrong]) == [200, 401, 401, 401, 401]


async def test_a_dead_webhook_is_listed_and_replayed_by_the_commands_of_troubleshooting(stack):
    script = pages.code("docs/troubleshooting.md", "sh")[2]
    async with stack() as found:
        found.receiver.behaviour = answering(400)
        anna = found.user("anna")
        await anna.say(await anna.group(), "Hello")
        dead = await found.wait_for_listed("dead", 2)
        found.receiver.behaviour = answering(200)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", script.replace("http://localhost:4000", found.pods[0].http)),
            env={"PATH": "/usr/bin:/bin", "INTERNAL_API_SECRET": INTERNAL_SECRET, "WEBHOOK_ID": dead[0]["id"]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
        assert process.returncode == 0, out
        assert set(re.findall(r'"lastError":"([^"]+)"', out.decode())) == {"answered 400"}
        (delivered,) = await found.wait_for_listed("delivered", 1)
        assert delivered["id"] == dead[0]["id"]
