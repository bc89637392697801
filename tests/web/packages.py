"""What the browser tests need: LiteRT.js, Playwright, axe and Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from harness.installed import installed, is_installed, npm_install

from tflite_export.demo import VERSION

# Where `make web` installs them.
PACKAGES = Path(__file__).parents[2] / ".web"
_PLAYWRIGHT = "playwright==1.65.2"
_AXE = "axe-core@4.14.1"  # Finds faults of accessibility.
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WANTED = json.dumps({"litertjs": VERSION, "playwright": _PLAYWRIGHT, "axe": _AXE})
_NEEDS = (
    f"The browser tests need @litertjs/core@{VERSION} and {_AXE} (`npm`) and "
    f"{_PLAYWRIGHT} (`pip`)."
)


def is_set_up(folder: Path) -> bool:
    """Returns whether the packages are in a folder, in the versions used here."""
    return is_installed(folder, _WANTED)


def set_up(folder: Path) -> Path:
    """Installs LiteRT.js and Playwright into a folder, if they are not there yet.

    Args:
        folder: Gets `node_modules` and `python`; git ignores it.

    Returns:
        The browser.

    Raises:
        RuntimeError: If a package cannot be had, or there is no browser.
    """
    browser = find_browser()
    installed(folder, _install, _NEEDS, _WANTED)
    return browser


def find_browser() -> Path:
    """Returns the path of Chromium.

    Raises:
        RuntimeError: If there is none.
    """
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        raise RuntimeError(
            f"One of {list(_BROWSERS)} must be installed. Received none. On Debian: "
            "`apt-get install chromium`."
        )
    return Path(found)


def _install(folder: Path) -> None:
    """Installs the packages into a folder."""
    npm_install(folder, f"@litertjs/core@{VERSION}", _AXE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--target", folder / "python"]
    subprocess.run([*pip, _PLAYWRIGHT], check=True)
