"""The files that attachments refer to: they stay with the master, in memory, until there are too many."""

from collections import OrderedDict
from secrets import token_urlsafe

from aiohttp import web

from app.dev.master.accounts import caller
from app.dev.master.answers import MAX_BODY, body, refusal

MAX_FILES = 16

routes = web.RouteTableDef()


class Files:
    """Contents by ids that nobody guesses; the oldest goes."""

    def __init__(self) -> None:
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, content: bytes) -> str:
        file_id = f"file_{token_urlsafe(16)}"
        self._contents[file_id] = content
        if len(self._contents) > MAX_FILES:
            self._contents.popitem(last=False)
        return file_id

    def get(self, file_id: str) -> bytes | None:
        return self._contents.get(file_id)


FILES = web.AppKey("files", Files)


@routes.post("/files")
async def upload(request: web.Request) -> web.Response:
    """Keep a file of at most 4 MiB; `externalFileId` is what a message refers to."""
    caller(request)
    content = await body(request)
    if not content:
        raise refusal(400, f"A file has 1 to {MAX_BODY} bytes.", "VALIDATION_ERROR")
    return web.json_response({"externalFileId": request.app[FILES].keep(content)}, status=201)


@routes.get("/files/{file_id}")
async def download(request: web.Request) -> web.Response:
    """Give a file to whoever knows its id, as a link in a page does; a browser saves it and never shows it."""
    content = request.app[FILES].get(request.match_info["file_id"])
    if content is None:
        raise refusal(404, "There is no such file any more.", "NOT_FOUND")
    headers = {"Content-Disposition": "attachment"}
    return web.Response(body=content, content_type="application/octet-stream", headers=headers)
