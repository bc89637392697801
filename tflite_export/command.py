"""Starts the command `tf-lsq`, so that Ctrl-C ends it without a traceback at any time.

Importing the command takes a while; nothing is imported before the interrupt is caught.
"""

INTERRUPTED = 130  # As shells report SIGINT.


def main() -> None:
    """Runs the command."""
    import os

    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        os.write(2, b"Aborted.\n")
        os._exit(INTERRUPTED)
