"""Renders templates of generated text: pages, and code that runs a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str,
    *,
    folder: Path = TEMPLATES,
    autoescape: bool,
    filters: dict[str, Callable[..., Any]] | None = None,
    values: dict[str, Any],
) -> str:
    """Renders a template.

    Args:
        template: Name of a file.
        folder: Where it is.
        autoescape: Whether values are escaped for HTML.
        filters: Additional filters, by name.
        values: Values for the template; a missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(values) + "\n"
