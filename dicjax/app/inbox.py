"""Uploads: a few are received at a time, on disk, and one after the other is read."""

import asyncio
import concurrent.futures
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from dicjax.app.uploads import Files, safe_name, TOO_LARGE
from dicjax.recordings import MAX_BYTES, TooLarge


AT_ONCE = 4  # uploads on disk; others wait in the browser
FRAME = 2**16  # bytes around the files of an upload
STALLED = 60.0  # s without a byte after which an upload is given up
Page = Callable[[Files, str], Awaitable[None]]  # and the name of their folder


class Inbox:
    """Receives the files that pages send.

    Neither receiving nor reading holds up the server: files of more than a megabyte are
    written to disk in threads while they arrive, and a thread of its own reads them.
    """

    def __init__(self):
        self.pages: dict[str, Page] = {}  # what each open page does with its files
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "reading")

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """Calls `work`, after all that was to be read before."""
        call = functools.partial(work, *args)
        return await asyncio.get_running_loop().run_in_executor(self._reader, call)

    async def receive(self, name: str, request: Request) -> Response:
        """Hands the files of a request to a page, if they are not too large.

        Responds when the page has read them.
        """
        answer = lambda why, status: PlainTextResponse(why, status)
        if (page := self.pages.get(name)) is None:
            return answer("This page is no longer open: open the app again.", 404)
        try:
            _check(int(request.headers.get("content-length", 0)))
            limited = Request(request.scope, _limited(request.receive))
            async with self._slots, limited.form(max_fields=1) as form:
                files = [x for x in form.values() if isinstance(x, UploadFile)]
                if not files:
                    return answer("There is no file in this upload.", 400)
                folder = form.get("folder")
                named = safe_name(folder) if isinstance(folder, str) and folder else ""
                await page({x.filename or "": x.file for x in files}, named)
        except TooLarge as error:
            return answer(str(error), 413)
        except TimeoutError:
            return answer("The upload stopped on its way: send the file again.", 408)
        except HTTPException:
            return answer("This is no upload of files.", 400)
        except ClientDisconnect:
            return answer("The upload was stopped.", 400)
        return answer("The files were read.", 200)


def _check(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES + FRAME:
        raise TooLarge(TOO_LARGE)


def _limited(receive: Callable[[], Awaitable[Message]]):
    """Ends an upload that is too large or stalls, whatever its header says."""
    num_bytes = 0

    async def receive_limited() -> Message:
        nonlocal num_bytes
        async with asyncio.timeout(STALLED):
            message = await receive()
        num_bytes += len(message.get("body", b""))
        _check(num_bytes)
        return message

    return receive_limited
