"""The demo master alone, beside a chat service that runs elsewhere."""

import argparse
import os

from aiohttp import web

from app.config import settings
from app.dev.master import create_master
from app.dev.master.config import MasterConfig


def main() -> None:
    """Run the master until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m app.dev.master", description="The demo master alone.")
    parser.add_argument("--chat-url", required=True, help="where REST is, as this process reaches it")
    parser.add_argument("--socket-url", required=True, help="where Socket.IO is, as the browser reaches it")
    parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    secrets = ("AUTH_JWT_SECRET", "INTERNAL_API_SECRET", "WEBHOOK_SECRET")
    found = settings.read_some(os.environ, "AUTH_JWT_ISSUER", *secrets)
    if found["webhook_secret"] is None:
        raise settings.SettingsError(["WEBHOOK_SECRET: is missing"])
    config = MasterConfig(
        chat_url=arguments.chat_url,
        socket_url=arguments.socket_url,
        jwt_issuer=found["auth_jwt_issuer"],
        jwt_secret=found["auth_jwt_secret"].reveal(),
        internal_secret=found["internal_api_secret"].reveal(),
        webhook_secret=found["webhook_secret"].reveal(),
    )
    web.run_app(create_master(config), port=arguments.port, access_log=None)


if __name__ == "__main__":
    main()
