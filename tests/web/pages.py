"""A demo page in a browser, for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHONE, DESKTOP = (390, 844), (1280, 800)
_MILLISECONDS = 15_000
_AXE = "node_modules/axe-core/axe.min.js"


class DemoPage:
    """A demo page.

    Args:
        running: From `browser.chromium`.
        address: Where the page is.
        size: Width and height of the window.
        scheme: "light" or "dark".
        routes: Patterns of addresses -> functions that answer requests.
    """

    def __init__(
        self,
        running: Any,
        address: str,
        size: tuple[int, int] = PHONE,
        scheme: str = "light",
        routes: dict[str, Any] | None = None,
    ) -> None:
        width, height = size
        phone = size == PHONE
        self.context = running.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=phone,
            is_mobile=phone,
        )
        for pattern, answer in (routes or {}).items():
            self.context.route(pattern, answer)
        self.context.set_default_timeout(_MILLISECONDS)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-state]")

    @property
    def state(self) -> str:
        """ "ready" or "failed"."""
        return self.page.get_attribute("body", "data-state")

    def text(self, selector: str) -> str:
        """Returns the text of an element."""
        return self.page.inner_text(selector)

    def rows(self) -> list[tuple[str, str]]:
        """Returns label and share of every row of the list."""
        return [
            tuple(row.locator(f".{name}").inner_text() for name in ("label", "share"))
            for row in self.page.locator("#bars li").all()
        ]

    def choose(self, mode: str) -> None:
        """Chooses where inputs come from, such as "camera" or "record"."""
        self.page.check(f"[name=mode][value={mode}]")

    def classify(self, pixels: np.ndarray) -> None:
        """Chooses a picture, and waits until the network ran.

        Args:
            pixels: uint8, `[height, width]` or `[height, width, 3]`.
        """
        file = {"name": "x.png", "mimeType": "image/png", "buffer": png(pixels)}
        with self.next_run():
            self.page.set_input_files("#choose", file)

    def hear(self, sound: bytes) -> None:
        """Chooses a sound file, and waits until the network ran.

        Args:
            sound: The file, WAV.
        """
        file = {"name": "x.wav", "mimeType": "audio/wav", "buffer": sound}
        with self.next_run():
            self.page.set_input_files("#choose", file)

    def drop(self, name: str, content: bytes) -> None:
        """Drops a file on the page, and waits until the network ran.

        Args:
            name: Its name.
            content: Its bytes.
        """
        with self.next_run():
            self.page.evaluate(
                """([name, bytes]) => {
                  const dataTransfer = new DataTransfer();
                  dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
                  const how = { dataTransfer, bubbles: true, cancelable: true };
                  document.body.dispatchEvent(new DragEvent("drop", how));
                }""",
                [name, list(content)],
            )

    def draw(self, *strokes: list[tuple[float, float]]) -> None:
        """Draws lines, and waits until the network ran.

        Args:
            *strokes: Points from 0 to 1 in the frame.
        """
        box = self.page.locator("#view").bounding_box()
        mouse = self.page.mouse
        with self.next_run():
            for stroke in strokes:
                points = [
                    (box["x"] + x * box["width"], box["y"] + y * box["height"])
                    for x, y in stroke
                ]
                mouse.move(*points[0])
                mouse.down()
                for point in points[1:]:
                    mouse.move(*point, steps=6)
                mouse.up()

    def next_run(self) -> _NextRun:
        """Waits, on leaving, until the network ran on what was done inside."""
        return _NextRun(self.page)

    def bytes_seen(self) -> np.ndarray:
        """Returns the bytes that the network gets, as RGB."""
        data, width, height = self.page.evaluate(
            """() => {
              const seen = document.getElementById("seen");
              const pen = seen.getContext("2d");
              const { data } = pen.getImageData(0, 0, seen.width, seen.height);
              return [[...data], seen.width, seen.height];
            }"""
        )
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def faults(self, packages: Path) -> list[str]:
        """Returns what axe finds wrong with the accessibility of the page.

        Args:
            packages: What `packages.set_up` filled.
        """
        self.page.add_script_tag(content=(packages / _AXE).read_text())
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [
            f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]
        ]


class _NextRun:
    """A context that waits until the network has run again, on the last input."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def __enter__(self) -> None:
        self._before = self._page.get_attribute("body", "data-runs") or "0"

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self._page.wait_for_function(
                """(runs) => {
                  const found = document.body.dataset;
                  return Number(found.runs) > runs && found.running === "false";
                }""",
                arg=int(self._before),
            )


def png(pixels: np.ndarray) -> bytes:
    """Returns pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
