"""What the master can verify, also while the secret is being changed on either side."""

import base64
import hmac
import json
from hashlib import sha256

import pytest
from receiver import WEBHOOK_SECRET
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

OLD = "the-secret-before-that-one-which-is-32-bytes"
STANDARD = "whsec_" + base64.b64encode(b"thirty-two-bytes-of-a-standard-secret").decode()


def expected(secret, body):
    return "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()


def inner_is_signed_with(one, secret):
    said = {name: one.json[name] for name in ("event", "timestamp", "data")}
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    return one.json["signature"] == expected(secret, text)


def standard(secret):
    return Webhook(secret if secret.startswith("whsec_") else base64.b64encode(secret.encode()).decode())


def verifies(one, secret):
    try:
        return standard(secret).verify(one.body, dict(one.headers)) == one.json
    except WebhookVerificationError:
        return False


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, STANDARD, "whsec_that is no base64 and a text like any other"])
async def test_both_kinds_of_signatures_verify(stack, secret):
    async with stack(WEBHOOK_SECRET=secret) as found:
        anna = found.user("anna")
        room = await anna.group()
        await anna.say(room, "Grüße 👋 \u2028")
        for one in (
            *await found.receiver.wait_for("conversation.created"),
            *await found.receiver.wait_for("message.created"),
        ):
            assert one.is_signed_with(secret)
            assert inner_is_signed_with(one, secret)
            if " " not in secret:
                assert verifies(one, secret)
            assert not verifies(one, OLD)
            assert len(one.headers["webhook-signature"].split()) == 1


async def test_a_master_that_still_has_the_previous_secret_is_served_at_once(stack):
    """The service has the new one already: the first is refused, then the old one goes first."""

    async def knows_the_old(one):
        return 200 if one.is_signed_with(OLD) else 401

    async with stack(WEBHOOK_SECRET_PREVIOUS=OLD, WEBHOOK_RETRY_SCHEDULE="1h") as found:
        found.receiver.behaviour = knows_the_old
        anna = found.user("anna")
        room = await anna.group()
        await anna.say(room, "hello")
        await found.wait_for_listed("delivered", 2)
        refused, repeated, message = found.receiver.received
        assert refused.is_signed_with(WEBHOOK_SECRET)
        assert inner_is_signed_with(refused, WEBHOOK_SECRET)
        assert repeated.id == refused.id
        assert repeated.is_signed_with(OLD)
        assert inner_is_signed_with(repeated, OLD)
        assert message.is_signed_with(OLD)
        for one in found.receiver.received:
            assert len(one.headers["webhook-signature"].split()) == 2
            assert verifies(one, WEBHOOK_SECRET)
            assert verifies(one, OLD)
        assert [one["attempts"] for one in await found.listed("delivered")] == [1, 1]

        async def knows_the_new(one):
            return 200 if one.is_signed_with(WEBHOOK_SECRET) else 401

        # The master has followed: refused once, and the new one goes first again.
        found.receiver.behaviour = knows_the_new
        await anna.say(room, "again")
        await anna.say(room, "and again")
        await found.wait_for_listed("delivered", 4)
        signed = [one.is_signed_with(WEBHOOK_SECRET) for one in found.receiver.received[3:]]
        assert signed == [False, True, True]


async def test_a_master_that_has_neither_secret_gets_both_and_then_the_schedule(stack):
    async def refuse(_):
        return 401

    async with stack(WEBHOOK_SECRET_PREVIOUS=OLD, WEBHOOK_RETRY_SCHEDULE="100ms") as found:
        found.receiver.behaviour = refuse
        await found.user().group()
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["attempts"] == 2
        assert dead["lastStatusCode"] == 401
        signed = [one.is_signed_with(WEBHOOK_SECRET) for one in found.receiver.received]
        assert signed == [True, False, True, False]


async def test_the_master_may_be_the_first_to_change(stack):
    """It has the new secret and the old one; the service has the old one alone, and is told the new one later."""

    async def knows_both(one):
        return 200 if verifies(one, OLD) or verifies(one, WEBHOOK_SECRET) else 401

    async with stack(workers=0) as found:
        found.receiver.behaviour = knows_both
        anna = found.user("anna")
        await found.start_worker(WEBHOOK_SECRET=OLD)
        await anna.group()
        await found.wait_for_listed("delivered", 1)
        await found.workers[0].stop()
        await found.start_worker(WEBHOOK_SECRET_PREVIOUS=OLD)
        await anna.group()
        await found.wait_for_listed("delivered", 2)
        assert len(found.receiver.received) == 2
