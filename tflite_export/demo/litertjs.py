"""LiteRT.js for a page: linked from a public server, or embedded.

Embedded, a page needs neither a server nor a network. The build of LiteRT.js that is
embedded needs only the SIMD that every browser has; a page that links it gets the build
for relaxed SIMD where the browser has that. Both compute the same codes, see
`runtimes.WASM`.

Reference: https://www.npmjs.com/package/@litertjs/core (Apache License 2.0)
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

VERSION = "2.5.3"
CORE = "@litertjs/core"
# Names that modules import -> files in the folder of npm's scope.
MODULES = {
    CORE: "core/dist/index.js",
    "@litertjs/wasm-utils": "wasm-utils/dist/index.js",
}
_PACKAGE = "core/package.json"
_LOADER = "core/wasm/litert_wasm_compat_internal.js"
_BINARY = "core/wasm/litert_wasm_compat_internal.wasm"
_SERVER = "https://cdn.jsdelivr.net/npm"
_HINT = f"npm install {CORE}@{VERSION}"


@dataclasses.dataclass(frozen=True)
class LiteRtJs:
    """Where a page finds LiteRT.js.

    Attributes:
        version: Its version.
        imports: Names that modules import -> addresses.
        address: The folder of its WebAssembly; "" if that is embedded.
        loader: The script that starts WebAssembly, compressed by gzip, as base64; ""
            if it is linked.
        binary: The same of the WebAssembly itself.
    """

    version: str
    imports: dict[str, str]
    address: str = ""
    loader: str = ""
    binary: str = ""


def linked() -> LiteRtJs:
    """Returns LiteRT.js on a public server, in a fixed version."""
    imports = {
        name: f"{_SERVER}/{name}@{VERSION}/{path.partition('/')[2]}"
        for name, path in MODULES.items()
    }
    return LiteRtJs(VERSION, imports, address=f"{_SERVER}/{CORE}@{VERSION}/wasm/")


def embedded(folder: Path) -> LiteRtJs:
    """Returns LiteRT.js from a folder of npm packages.

    Args:
        folder: Where `npm install` was run, or its `node_modules`.

    Raises:
        ValueError: If the folder does not contain the packages.
    """
    scope = next(
        (
            place
            for place in (folder / "node_modules/@litertjs", folder / "@litertjs")
            if place.is_dir()
        ),
        folder / "node_modules/@litertjs",
    )
    needed = [*MODULES.values(), _PACKAGE, _LOADER, _BINARY]
    missing = [str(scope / path) for path in needed if not (scope / path).is_file()]
    if missing:
        raise ValueError(
            f"`offline` must be a folder in which `{_HINT}` was run. Received "
            f"{str(folder)!r}, without {missing}."
        )
    package: dict[str, Any] = json.loads((scope / _PACKAGE).read_text())
    return LiteRtJs(
        version=package["version"],
        imports={name: _as_url(scope / path) for name, path in MODULES.items()},
        loader=compressed((scope / _LOADER).read_bytes()),
        binary=compressed((scope / _BINARY).read_bytes()),
    )


def compressed(content: bytes) -> str:
    """Returns bytes compressed by gzip, as base64; the same for the same bytes."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _as_url(path: Path) -> str:
    """Returns a module as an address that contains it."""
    return f"data:text/javascript;base64,{base64.b64encode(path.read_bytes()).decode()}"
