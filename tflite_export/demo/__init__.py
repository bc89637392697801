"""A demo of a file: one HTML page, and a server that shows it to a phone."""

from .litertjs import MODULES, VERSION
from .outputs import BOXES
from .page import DemoOptions, demo_page, write_demo
from .server import PageServer, qr_code, serve_page
from .spectrogram import Spectrogram, read_spectrogram

__all__ = [
    "BOXES",
    "MODULES",
    "VERSION",
    "DemoOptions",
    "PageServer",
    "Spectrogram",
    "demo_page",
    "qr_code",
    "read_spectrogram",
    "serve_page",
    "write_demo",
]
