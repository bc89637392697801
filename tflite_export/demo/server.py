"""Serves a page on the local network, and nothing else."""

from __future__ import annotations

import http.server
import io
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import segno

_HOST = ""  # All networks of this machine.
# RFC 5737: never a real machine. Nothing is sent to it.
_ELSEWHERE = ("192.0.2.1", 9)
_SECONDS = 30  # After which a silent connection is closed.


class PageServer(http.server.ThreadingHTTPServer):
    """A server of one page, at the path "/"; every other path is unknown.

    Args:
        page: The page.
        port: Where it listens; 0: any free port.

    Raises:
        OSError: If the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, page: bytes, port: int) -> None:
        self.page = page
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise OSError(
                f"`port` must be free, and one that this user may use. Received {port}:"
                f" {error.strerror}. Pass another one."
            ) from error

    @property
    def address(self) -> str:
        """The address of the page for other machines in the network."""
        return f"http://{local_address()}:{self.server_address[1]}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD of "/" with the page, and others with an error."""

    timeout = _SECONDS
    server_version, sys_version = "tf-lsq", ""

    def do_GET(self) -> None:
        """Sends the page."""
        if self._begin():
            self.wfile.write(self._page)

    def do_HEAD(self) -> None:
        """Sends the headers of the page."""
        self._begin()

    @property
    def _page(self) -> bytes:
        """The page of the server."""
        return cast("PageServer", self.server).page

    def _begin(self) -> bool:
        """Sends headers; returns whether the page follows."""
        if self.path.partition("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return False
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self._page)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


def local_address() -> str:
    """Returns the IPv4 address of this machine in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)  # Only chooses the way there.
        except OSError:  # No network.
            return "127.0.0.1"
        return probe.getsockname()[0]


def serve_page(page: bytes, port: int, tell: Callable[[str], None]) -> None:
    """Serves a page on the local network until the user presses Ctrl-C.

    Args:
        page: The page.
        port: Where to listen; 0: any free port.
        tell: Gets the address, a QR code of it and who can see the page.

    Raises:
        OSError: If the port cannot be used.
    """
    with PageServer(page, port) as server:
        tell(
            f"{server.address}\n{qr_code(server.address)}\n"
            "Everyone in this network can open the page, and nothing else, until you "
            "press Ctrl-C.\nThe live camera needs https or localhost; phones can take "
            "photos."
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            tell("Stopped.")


def qr_code(text: str) -> str:
    """Returns a QR code for a terminal, in half blocks.

    Args:
        text: What it contains.
    """
    drawn = io.StringIO()
    segno.make(text, micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue().rstrip("\n")
