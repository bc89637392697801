"""Headless Chromium, driven by Playwright, and files in it under LiteRT.js."""

from __future__ import annotations

import base64
import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# LiteRT.js has a build for browsers with relaxed SIMD, and one for the others.
BUILDS = {
    "relaxed SIMD": "core/wasm/litert_wasm_internal.js",
    "SIMD": "core/wasm/litert_wasm_compat_internal.js",
}
# The first is needed by root; the others keep Chromium from looking for a network.
_ARGUMENTS = """--no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"""
_ADDRESS = "http://litert.test/"
_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
_RUNNER = Path(__file__).with_name("runner.html")
_SECONDS = 60


@contextlib.contextmanager
def chromium(folder: Path, browser: Path) -> Iterator[Any]:
    """Playwright's object of a running browser.

    Args:
        folder: What `packages.set_up` filled.
        browser: The browser.
    """
    place = str(folder.resolve() / "python")
    if place not in sys.path:
        sys.path.append(place)
    playwright = importlib.import_module("playwright.sync_api").sync_playwright()
    with playwright as driver:
        running = driver.chromium.launch(
            executable_path=str(browser), args=_ARGUMENTS.split()
        )
        yield running
        running.close()


class Page:
    """A page that runs files.

    Args:
        running: From `chromium`.
        html: The page, which has `window.run` when `window.ready` is true.
        modules: Folder of the packages that it loads.
        query: What it gets as its query.
    """

    def __init__(self, running: Any, html: Path, modules: Path, query: str) -> None:
        self._context = running.new_context()
        self._html, self._modules = html, modules
        self._address = f"{_ADDRESS}?{query}"
        self._context.route(f"{_ADDRESS}**", self._answer)
        self._open()

    def _open(self) -> None:
        """Opens the page."""
        self._page = self._context.new_page()
        self._page.goto(self._address)
        self._page.wait_for_function("window.ready", timeout=1000 * _SECONDS)

    def _answer(self, route: Any) -> None:
        """Answers a request with the page, or with a file of a package."""
        path = route.request.url.removeprefix(_ADDRESS)
        file = self._html if path.startswith("?") else self._modules / path
        if not file.is_file():
            route.fulfill(status=404)
            return
        content_type = _TYPES[file.suffix]
        route.fulfill(body=file.read_bytes(), content_type=content_type)

    def run(
        self, content: bytes, inputs: dict[str, np.ndarray], size: int = 1
    ) -> dict[str, np.ndarray]:
        """Returns the outputs of a file by name.

        Args:
            content: The bytes of the file.
            inputs: Arrays by name, of the same number of examples.
            size: The file's batch size: how many examples it gets at a time.

        Raises:
            RuntimeError: With the message of the page, if it refuses the file.
        """
        given = {
            name: {
                "dtype": array.dtype.name,
                "shape": (size, *array.shape[1:]),
                "data": base64.b64encode(array.tobytes()).decode(),
            }
            for name, array in inputs.items()
        }
        count = len(next(iter(inputs.values()))) // size
        arguments = [base64.b64encode(content).decode(), given, count]
        errors = importlib.import_module("playwright.sync_api").Error
        try:
            found = self._page.evaluate("(all) => window.run(...all)", arguments)
        except errors as error:
            self._page.close()
            self._open()  # A failed file may leave the module unusable.
            raise RuntimeError(str(error)) from error
        return {name: _array(*one) for name, one in found.items()}


class LiteRt(Page):
    """A build of LiteRT.js in a page; names are those of the signature.

    Args:
        running: From `chromium`.
        folder: What `packages.set_up` filled.
        build: A key of `BUILDS`.
    """

    def __init__(self, running: Any, folder: Path, build: str) -> None:
        modules = folder / "node_modules/@litertjs"
        query = f"build={_ADDRESS}{BUILDS[build]}"
        super().__init__(running, _RUNNER, modules, query)


def _array(dtype: str, shape: list[int], rows: list[str]) -> np.ndarray:
    """Returns the results of all runs as one array."""
    whole = b"".join(base64.b64decode(row) for row in rows)
    return np.frombuffer(whole, dtype).reshape(-1, *shape[1:])
