"""The users of the demo master: their logins, their tokens, and their profiles in the chat service."""

import logging
import time
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
import msgspec
from aiohttp import ClientError, web

from app.dev.master.answers import read, refusal
from app.dev.master.config import CONFIG, SESSION, MasterConfig

MAX_NAME = 64
MAX_ACCOUNTS = 10_000
TOKEN_LIFETIME = 3600

routes = web.RouteTableDef()
_log = logging.getLogger(__name__)


class Login(msgspec.Struct):
    """The body of a login."""

    name: str


class Profile(msgspec.Struct, rename="camel"):
    """The body of a change of one's profile."""

    display_name: str


@dataclass
class Account:
    """A user, as the master's own database would have them."""

    display_name: str
    member_since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    status: str = "offline"
    # Which change of the status this is: webhooks may come again, and late.
    transition: int = 0


class Accounts:
    """The users by their ids."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def register(self, user_id: str, display_name: str) -> Account:
        """Give the account of an id, made now if there is none."""
        if user_id not in self._accounts and len(self._accounts) >= MAX_ACCOUNTS:
            raise refusal(400, "There are too many accounts; start the demo anew.", "TOO_MANY_ACCOUNTS")
        return self._accounts.setdefault(user_id, Account(display_name))

    def set_status(self, user_id: str, status: str, transition: int) -> None:
        account = self._accounts.get(user_id)
        if account is not None and transition > account.transition:
            account.status, account.transition = status, transition

    def public(self, user_id: str) -> dict[str, Any] | None:
        """Give what others may see of a user."""
        account = self._accounts.get(user_id)
        if account is None:
            return None
        return {
            "displayName": account.display_name,
            "memberSince": account.member_since,
            "status": account.status,
        }


ACCOUNTS = web.AppKey("accounts", Accounts)


def user_id_of(name: str) -> str:
    """Derive the user's id from a name, so that the same name is the same user wherever it is typed.

    The page does the same when somebody is invited by name (`userIdOf` in people.js).
    """
    user_id = "-".join(unicodedata.normalize("NFC", name).lower().split())
    if not 1 <= len(user_id) <= MAX_NAME:
        raise refusal(400, f"A name has 1 to {MAX_NAME} characters.", "VALIDATION_ERROR")
    if not user_id[0].isalnum() or not all(_allowed(character) for character in user_id):
        problem = "A name begins with a letter or a digit and has letters, digits, spaces and . _ - only."
        raise refusal(400, problem, "VALIDATION_ERROR")
    return user_id


def _allowed(character: str) -> bool:
    return character in "._-" or unicodedata.category(character)[0] in "LMN"


def sign_token(config: MasterConfig, user_id: str, lifetime: int = TOKEN_LIFETIME) -> str:
    """Sign the token that both this master and the chat service accept."""
    now = int(time.time())
    claims = {
        "sub": user_id,
        "externalUserId": user_id,
        "permissions": ["chat:read", "chat:write"],
        "iat": now,
        "exp": now + lifetime,
        "iss": config.jwt_issuer,
    }
    return jwt.encode(claims, config.jwt_secret, algorithm="HS256")


def caller(request: web.Request) -> str:
    """Tell who calls, by `Authorization: Bearer`; raises the refusal of a token that does not do."""
    config = request.app[CONFIG]
    _, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        claims = jwt.decode(
            token,
            config.jwt_secret,
            algorithms=["HS256"],
            issuer=config.jwt_issuer,
            options={"require": ["exp", "sub"]},
        )
    except jwt.InvalidTokenError as problem:
        raise refusal(401, "Log in first.", "UNAUTHORIZED") from problem
    return str(claims["sub"])


async def sync_user(app: web.Application, user_id: str, account: Account) -> None:
    """Tell the chat service of a profile: on registration, and whenever it changes.

    Where that fails the user is logged in nevertheless, and their profile is sent again at the next login.
    """
    profile = {"externalUserId": user_id, "displayName": account.display_name}
    headers = {"X-Internal-Secret": app[CONFIG].internal_secret}
    try:
        async with app[SESSION].post(
            f"{app[CONFIG].chat_url}/api/users/sync", json=profile, headers=headers
        ) as response:
            response.raise_for_status()
    except (ClientError, TimeoutError, OSError) as problem:
        _log.warning("the profile of the user %s could not be sent to the chat service: %s", user_id, problem)


@routes.post("/login")
async def login(request: web.Request) -> web.Response:
    name = (await read(request, Login)).name
    user_id = user_id_of(name)
    account = request.app[ACCOUNTS].register(user_id, " ".join(name.split()))
    await sync_user(request.app, user_id, account)
    config = request.app[CONFIG]
    token = sign_token(config, user_id)
    answer = {
        "token": token,
        "userId": user_id,
        "displayName": account.display_name,
        "socketUrl": config.socket_url,
    }
    return web.json_response(answer)


@routes.patch("/profile")
async def update_profile(request: web.Request) -> web.Response:
    user_id = caller(request)
    display_name = " ".join((await read(request, Profile)).display_name.split())
    if not 1 <= len(display_name) <= MAX_NAME or "\x00" in display_name:
        raise refusal(400, f"A name has 1 to {MAX_NAME} characters.", "VALIDATION_ERROR")
    account = request.app[ACCOUNTS].register(user_id, display_name)
    account.display_name = display_name
    await sync_user(request.app, user_id, account)
    return web.json_response(request.app[ACCOUNTS].public(user_id))
