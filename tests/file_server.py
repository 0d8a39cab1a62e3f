"""A web server of files in memory, with the faults that tests of downloads need."""

import contextlib
import http.server
import threading


class FileServer:
    """Serves `files` (bytes by name) at `url`; a context manager.

    Attributes:
      files: what there is.
      cuts: after how many bytes of an answer the connection breaks, by name; one number for each
        answer in turn, and none for those after.
      ranges: whether it gives parts of files.
      lengths: whether it tells how long its answers are.
      asked: the name and the `Range` of each request.
      halted: while it is clear, answers wait.
    """

    def __init__(self):
        self.files, self.cuts, self.asked = {}, {}, []
        self.ranges = self.lengths = True
        self.halted = threading.Event()
        self.halted.set()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    owner._answer(self)
                self.close_connection = True

            def log_message(self, format, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.halted.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler):
        name, asked = handler.path.lstrip("/"), handler.headers["Range"]
        self.asked.append((name, asked))
        self.halted.wait()
        if name not in self.files:
            handler.send_error(404)
            return
        data = self.files[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if start and start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.lengths:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        cuts = self.cuts.get(name, [])
        handler.wfile.write(data[start:][: cuts.pop(0) if cuts else None])
