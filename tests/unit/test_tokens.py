import base64
import hmac
import json
import time

import jwt
import pytest
from clients import token
from pods import INTERNAL_SECRET, ISSUER, SECRET, until

from app.config.settings import Settings
from app.config.types import Secret
from app.contract.errors import Unauthorized
from app.identity import tokens
from app.identity.actor import Actor
from app.identity.tokens import TokenVerifier, issue

PREVIOUS = "the-secret-before-the-rotation-of-secrets"
NOW = int(time.time())


def settings(**more):
    return Settings.read(
        {
            "AUTH_JWT_SECRET": SECRET,
            "AUTH_JWT_ISSUER": ISSUER,
            "INTERNAL_API_SECRET": INTERNAL_SECRET,
            "DATABASE_URL": "postgresql://db/chat",
            "REDIS_URL": "redis://redis",
            **more,
        }
    )


def verify(text, **more) -> Actor:
    return TokenVerifier(settings(**more)).verify(text)


def part(value: bytes):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def handmade(header, claims):
    return f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}."


def signed(header, claims):
    """Sign whatever it is, with the right secret."""
    text = handmade(header, claims).removesuffix(".")
    return f"{text}.{part(hmac.digest(SECRET.encode(), text.encode(), 'sha256'))}"


CLAIMS = {"sub": "anna", "iss": ISSUER, "exp": NOW + 21_600}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "a.b.c",
        "é.è.ê",
        token("anna", secret="another-secret-that-is-long-enough-too"),
        token("anna", exp=NOW - 2),
        token("anna", exp=None),
        token("anna", exp="tomorrow"),
        token("anna", exp=True),
        token("anna", exp=str(NOW + 21_600)),
        token("anna", iss="somebody-else"),
        token("anna", iss=None),
        token("anna", nbf=NOW + 3600),
        token("anna", sub=None, externalUserId=None),
        token("anna", externalUserId=""),
        token("anna", externalUserId="x" * 129),
        token("anna", externalUserId="nul\x00"),
        token("anna", externalUserId=7),
        token("anna", externalUserId={"id": "anna"}),
        token("anna", externalUserId=None, sub="x" * 129),
        token("anna", nbf="tomorrow"),
        token("anna").replace(".", "..", 1),
        token("anna") + ".",
        "." + token("anna"),
        handmade({"alg": "none", "typ": "JWT"}, CLAIMS),
        jwt.encode(CLAIMS, SECRET * 2, "HS512"),
        signed({"alg": "none"}, CLAIMS),
        signed({"alg": "HS512"}, CLAIMS),
        signed({}, CLAIMS),
        signed(["HS256"], CLAIMS),
        signed({"alg": "HS256", "crit": ["b64"], "b64": False}, CLAIMS),
        signed({"alg": "HS256"}, "anna"),
        signed({"alg": "HS256"}, None),
    ],
)
def test_what_is_wrong_is_refused_without_a_reason(text):
    with pytest.raises(Unauthorized) as raised:
        verify(text)
    assert raised.value.message == "The token is missing, wrong or expired"


def test_an_external_user_id_that_is_null_is_no_reason_to_fall_back():
    text = jwt.encode({"sub": "anna", "externalUserId": None, "iss": ISSUER, "exp": NOW + 60}, SECRET, "HS256")
    with pytest.raises(Unauthorized):
        verify(text)


@pytest.mark.parametrize(
    ("text", "user_id"),
    [
        (token("anna"), "anna"),
        (signed({"alg": "HS256"}, CLAIMS), "anna"),
        (token("sub", externalUserId="external"), "external"),
        (token("anna", externalUserId=None), "anna"),
        (token("anna", sub=None), "anna"),
        (token("anna", sub=17), "anna"),
        (token("x" * 128), "x" * 128),
        (token("Zoë 🦊"), "Zoë 🦊"),
        (token("anna", iat=NOW + 30), "anna"),
        (token("anna", iat=None), "anna"),
        (token("anna", aud="somebody"), "anna"),
        (token("anna", exp=NOW + 21_600.5), "anna"),
    ],
)
def test_what_is_right_names_its_user(text, user_id):
    assert verify(text).user_id == user_id


def test_an_expiry_has_a_second_of_leeway():
    assert verify(token("anna", exp=int(time.time()))).user_id == "anna"


@pytest.mark.parametrize(
    ("permissions", "can_read", "can_write"),
    [
        (["chat:read", "chat:write"], True, True),
        (["chat:read"], True, False),
        (["chat:write", 5], False, True),
        ("chat:read chat:write", False, False),
        ({"chat:read": True}, False, False),
        ([], False, False),
        (None, False, False),
    ],
)
def test_permissions_are_a_list_and_anything_else_is_none(permissions, can_read, can_write):
    actor = verify(token("anna", permissions=permissions))
    assert (actor.can_read, actor.can_write) == (can_read, can_write)


def test_an_audience_counts_only_where_one_is_set():
    wanted = {"AUTH_JWT_AUDIENCE": "chat"}
    assert verify(token("anna", aud=["chat", "mail"]), **wanted).user_id == "anna"
    for wrong in ({"aud": "mail"}, {}):
        with pytest.raises(Unauthorized):
            verify(token("anna", **wrong), **wanted)


def test_the_previous_secret_is_good_as_long_as_it_is_set():
    old = token("anna", secret=PREVIOUS)
    assert verify(old, AUTH_JWT_SECRET_PREVIOUS=PREVIOUS).user_id == "anna"
    with pytest.raises(Unauthorized):
        verify(old)


def test_an_issued_token_is_accepted():
    more = {"AUTH_JWT_AUDIENCE": "chat"}
    actor = verify(issue(Secret(SECRET), ISSUER, "chat", "anna", 60), **more)
    assert (actor.user_id, actor.can_read, actor.can_write) == ("anna", True, True)
    assert actor.expires_at == pytest.approx(time.time() + 60, abs=5)


async def test_a_token_that_was_verified_is_known_until_it_expires():
    verifier = TokenVerifier(settings())
    text = token("anna", exp=int(time.time()) + 1)
    assert verifier.verify(text) is verifier.verify(text)

    async def is_refused():
        try:
            verifier.verify(text)
        except Unauthorized:
            return True
        return False

    await until(is_refused, "the end of the token")


def test_what_differs_in_one_character_is_another_token():
    verifier = TokenVerifier(settings())
    text = token("anna")
    verifier.verify(text)
    with pytest.raises(Unauthorized):
        verifier.verify(text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1])


def test_no_more_tokens_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 2)
    verifier = TokenVerifier(settings())
    texts = [token(name) for name in ("anna", "ben", "cleo")]
    actors = [verifier.verify(text) for text in texts]
    assert verifier.verify(texts[2]) is actors[2]
    assert verifier.verify(texts[0]) is not actors[0]
    assert verifier.verify(texts[0]) == actors[0]


def test_refused_tokens_are_logged_by_their_kinds_and_not_one_by_one(caplog):
    verifier = TokenVerifier(settings())
    refused = [
        "nonsense",
        token("anna", exp=1),
        token("anna", secret="another-secret-of-the-tests-for-a-signature"),
    ]
    with caplog.at_level("INFO"):
        for text in refused * 100:
            with pytest.raises(Unauthorized):
                verifier.verify(text)
    assert len(caplog.records) == len(refused)
