"""A local HTTP server of one file that can close connections, reject ranges, or change the file."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """The file and how it is served; ``requests`` has the Range of each request.

    Parameters
    ----------
    content : bytes
    cut : list of int
        After how many bytes the first connections break off; the later ones do not.
    ranges : bool
        Whether a part of the file can be requested.
    status : int
        The answer to every request, if not 200.
    """

    def __init__(self, content: bytes, cut=(), ranges: bool = True, status: int = 200):
        self.content, self.cut, self.ranges, self.status = content, list(cut), ranges, status
        self.etag = '"1"'
        self.requests: list[str | None] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        if self.status != 200:
            handler.send_error(self.status)
            return
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        same = handler.headers.get("If-Range", self.etag) == self.etag
        start = int(found[1]) if found and self.ranges and same else 0
        if found and start >= len(self.content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            end, size = len(self.content) - 1, len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        count = self.cut.pop(0) if self.cut else len(self.content)
        handler.wfile.write(self.content[start : start + count])


@contextmanager
def serve(file: FileServer) -> Iterator[FileServer]:
    """Serve a file on a free port; ``file.url`` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        file.url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield file
        finally:
            server.shutdown()
            thread.join()
