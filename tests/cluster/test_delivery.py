"""The promise: every listener has every message once and in order, whatever breaks meanwhile."""

import pytest
from clients import Rest, somebody, token
from delivery import PollingListener, WebSocketListener, everybody_hears_everything, talk
from troubles import calm, messages_dropped, pod_killed, pubsub_killed, redis_stopped

SENDERS = 50
LISTENERS = 40
MESSAGES = 5_000
POLLING_LISTENERS = 4


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", [calm, pubsub_killed, redis_stopped, messages_dropped, pod_killed])
async def test_every_listener_has_every_message_once_and_in_order(servers, tmp_path, http, trouble):
    people = [somebody() for _ in range(SENDERS)]
    async with trouble(servers, tmp_path) as (started, make):
        room = await Rest(http, started[0].http, people[0], token(people[0])).group(*people[1:])
        kinds = [PollingListener] * POLLING_LISTENERS + [WebSocketListener] * (LISTENERS - POLLING_LISTENERS)
        listeners = [made(started, people[n], room, n) for n, made in enumerate(kinds)]
        talks = [talk(http, started, user_id, room, lambda n: n == MESSAGES // SENDERS) for user_id in people]
        assert await everybody_hears_everything(listeners, make(), talks) == MESSAGES
