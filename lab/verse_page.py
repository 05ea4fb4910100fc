"""The page of `npopt verse`: one page, served to this machine alone.

GET /           the page; its script and its style are /verse.js and /verse.css
GET /write?upper=...&rhyme=...      {"lines": [...]} or {"error": "one sentence"}

The server listens on the loopback address. It answers only requests that name that address as their host, and that no
other page has sent, as browsers say in Sec-Fetch-Site: a page from elsewhere can neither read nor use it. Requests are
short, fields are those of Wish, and what comes back is data: the page puts it in as text, never as HTML.
"""

import http.server
import json
import sys
import urllib.parse
from pathlib import Path

from lab.wish import Wish
from npopt.errors import UserError

HOST = "127.0.0.1"
LONGEST = 1000  # characters of a request's path, fields and all
FILES = {"/": ("verse.html", "text/html"), "/verse.js": ("verse.js", "text/javascript"),
         "/verse.css": ("verse.css", "text/css")}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def asked(query):
    """The Wish of a request's fields; a UserError where they are not such."""
    try:
        fields = urllib.parse.parse_qs(query, max_num_fields=20, encoding="utf-8", errors="strict")
    except UnicodeDecodeError:
        raise UserError("fields are UTF-8") from None
    except ValueError:
        raise UserError("there are too many fields") from None
    if any(len(values) > 1 for values in fields.values()):
        raise UserError("each field may be given once")
    return Wish.of({"upper": ""} | {name: values[0] for name, values in fields.items()})


class Page(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "npopt", ""
    timeout = 10

    def do_GET(self):  # noqa: N802 (the library's name)
        address = f"{HOST}:{self.server.server_port}"
        if self.headers.get("Host") not in (address, address.replace(HOST, "localhost")):
            return self.answer(403, {"error": "this page is for this machine alone"})
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return self.answer(403, {"error": "this page answers itself alone"})
        if len(self.path) > LONGEST:
            return self.answer(414, {"error": f"a request has at most {LONGEST} characters"})
        path, _, query = self.path.partition("?")
        if path in FILES:
            name, kind = FILES[path]
            return self.send(200, (Path(__file__).parent / "templates" / name).read_bytes(), kind)
        if path != "/write":
            return self.answer(404, {"error": "there is no such page"})
        try:
            return self.answer(200, {"lines": self.server.assistant.write(asked(query))})
        except UserError as error:
            return self.answer(400, {"error": str(error)})

    def answer(self, status, found):
        return self.send(status, json.dumps(found, ensure_ascii=False).encode(), "application/json")

    def send(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The terminal stays free."""


def server(assistant, port=0):
    """A server on the loopback address; port 0: a free one."""
    try:
        found = http.server.ThreadingHTTPServer((HOST, port), Page)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be had ({getattr(error, 'strerror', None) or error}); leave it out"
        ) from None
    found.daemon_threads, found.assistant = True, assistant
    return found


def serve(assistant, port=0):
    """Until Ctrl-C. Returns the exit status, or a sentence."""
    try:
        found = server(assistant, port)
    except UserError as error:
        return str(error)
    print(f"http://{HOST}:{found.server_port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    with found:
        found.serve_forever()
    return 0
