"""What REST answers where no use-case came to an end."""

import logging
from asyncio import CancelledError
from types import SimpleNamespace

import pytest
from sanic.exceptions import RequestCancelled

from app.rest.errors import ErrorAnswers

REQUEST = SimpleNamespace(method="GET", path="/api/conversations", headers={})


@pytest.mark.parametrize("cancelled", [CancelledError(), RequestCancelled()])
def test_a_call_that_is_cut_is_unavailable_and_no_error_of_ours(cancelled, caplog):
    with caplog.at_level(logging.DEBUG):
        answer = ErrorAnswers().default(REQUEST, cancelled)
    assert (answer.status, b"SERVICE_UNAVAILABLE" in answer.body, caplog.records) == (503, True, [])
