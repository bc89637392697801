"""The server of a page: that page and nothing else, until Ctrl-C."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tflite_export.demo import PageServer, qr_code
from tflite_export.demo.server import local_address

PAGE = b"<!doctype html>the page"
ROOT = Path(__file__).parents[1]
_SCRIPT = """
from tflite_export.demo import serve_page
serve_page(b"<!doctype html>the page", 0, lambda text: print(text, flush=True))
print("after", flush=True)
"""


@pytest.fixture
def server():
    with PageServer(PAGE, 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


def answer(server, method, path):
    """Status, headers and body of a request to this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], 10)
    connection.putrequest(method, path)
    connection.endheaders()
    found = connection.getresponse()
    result = found.status, dict(found.getheaders()), found.read()
    connection.close()
    return result


@pytest.mark.parametrize("path", ["/", "/?from=qr"])
def test_the_page_is_served(server, path):
    status, headers, body = answer(server, "GET", path)
    assert (status, body) == (200, PAGE)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Length"] == str(len(PAGE))
    assert "Python" not in headers["Server"]
    assert answer(server, "HEAD", path)[::2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/setup.py", "/../setup.py", "/..%2fsetup.py", "/%2e%2e/setup.py", "/tests/", "/.",
     "//etc/passwd", "/./", "/index.html", "file:///etc/passwd", "/\\..\\setup.py"],
)  # fmt: skip
def test_no_other_path_is_served(server, path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for method in ("GET", "HEAD"):
        status, _, body = answer(server, method, path)
        assert status == 404 and b"setup(" not in body and b"root:" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(server, method):
    assert answer(server, method, "/")[0] == 501


def test_a_silent_connection_does_not_block_others(server):
    with socket.create_connection(("127.0.0.1", server.server_address[1]), 10):
        assert answer(server, "GET", "/")[0] == 200


def test_a_port_in_use_is_refused_with_a_remedy(server):
    port = server.server_address[1]
    with pytest.raises(OSError, match=rf"`port` must be free.*Received {port}"):
        PageServer(PAGE, port)


def test_the_address_is_that_of_this_machine(server):
    port = server.server_address[1]
    assert server.address == f"http://{local_address()}:{port}/"
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", local_address())


def test_the_qr_code_is_square_and_encodes_its_text():
    first, other = qr_code("http://10.0.0.1:8000/"), qr_code("http://10.0.0.2:8000/")
    lines = first.splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines) == (len(lines[0]) + 1) // 2
    assert first != other


def test_ctrl_c_ends_the_server_cleanly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = [process.stdout.readline()]
    while "camera" not in lines[-1] and lines[-1]:
        lines.append(process.stdout.readline())
    text = "".join(lines)
    assert re.match(r"http://[\d.]+:\d+/\n", text) and "█" in text
    assert "Everyone in this network can open the page" in text
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert output == "Stopped.\nafter\n" and "Traceback" not in errors
    assert process.returncode == 0
