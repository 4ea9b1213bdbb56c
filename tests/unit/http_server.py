"""A web server of one file that misbehaves on request."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What a server gives, and what it was asked for.

    Attributes
    ----------
    content : bytes
    drop : list of int
        Bytes after which the connections are closed, one after the other; then none is.
    statuses : list of int
        Answers of the first requests; 200 goes on as usual.
    ranges : bool
        Whether a request for the rest is understood.
    length : bool
        Whether the length is told.
    asked : list of str
        The ranges that were asked for, "" for everything.
    """

    def __init__(self, content, *, drop=(), statuses=(), ranges=True, length=True):
        self.content = content
        self.drop = list(drop)
        self.statuses = list(statuses)
        self.ranges = ranges
        self.length = length
        self.asked = []
        self.address = ""

    def answer(self, handler):
        wanted = handler.headers.get("Range", "")
        self.asked.append(wanted)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            return handler.send_error(status)
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            return handler.end_headers()
        handler.send_response(206 if start else 200)
        body = self.content[start:]
        if start:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.drop.pop(0)] if self.drop else body)


@contextmanager
def serving(*args, **kwargs):
    """Run a `Site` at ``site.address`` until the block ends."""
    site = Site(*args, **kwargs)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}/file.zip"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
