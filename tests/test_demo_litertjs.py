"""LiteRT.js in a page: linked in a fixed version, or embedded whole."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from tflite_export.demo.litertjs import MODULES, VERSION, embedded, linked

FILES = (
    *MODULES.values(),
    "core/wasm/litert_wasm_compat_internal.js",
    "core/wasm/litert_wasm_compat_internal.wasm",
)


@pytest.fixture
def folder(tmp_path):
    """A folder that looks as after `npm install`."""
    scope = tmp_path / "node_modules/@litertjs"
    for path in FILES:
        (scope / path).parent.mkdir(parents=True, exist_ok=True)
        (scope / path).write_text(f"content of {path}")
    (scope / "core/package.json").write_text(json.dumps({"version": "7.8.9"}))
    return tmp_path


def test_links_have_one_version():
    found = linked()
    assert set(found.imports) == set(MODULES)
    for name, address in found.imports.items():
        assert f"/npm/{name}@{VERSION}/dist/" in address
    assert f"@{VERSION}/wasm/" in found.address and found.address.endswith("/")
    assert not found.binary and not found.loader


@pytest.mark.parametrize("place", [".", "node_modules"])
def test_files_are_embedded_as_they_are(folder, place):
    found = embedded(folder / place)
    assert found.version == "7.8.9" and found.address == ""
    for name, address in found.imports.items():
        head, _, content = address.partition(",")
        assert head == "data:text/javascript;base64"
        assert base64.b64decode(content).decode() == f"content of {MODULES[name]}"
    for packed, path in zip((found.loader, found.binary), FILES[2:], strict=True):
        content = gzip.decompress(base64.b64decode(packed)).decode()
        assert content == f"content of {path}"
    assert embedded(folder / place) == found  # The same bytes every time.


def test_a_folder_without_the_packages_is_refused_with_what_is_missing(folder):
    (folder / "node_modules/@litertjs/wasm-utils/dist/index.js").unlink()
    with pytest.raises(ValueError, match=r"npm install @litertjs/core.*wasm-utils"):
        embedded(folder)
    with pytest.raises(ValueError, match=r"index.js.*package.json.*internal.wasm"):
        embedded(folder / "nowhere")
