"""Starts the command `tf-lsq`, so that Ctrl-C ends it without a traceback at any time.

Importing the command takes a while; nothing is imported before the interrupt is caught.
"""

INTERRUPTED = 130  # As shells report SIGINT.


def main() -> None:
    """Runs the command."""
    try:
        from .cli import main as run

        run()
    except SystemExit:
        raise
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        import os

        os.write(2, b"Aborted.\n")
        os._exit(INTERRUPTED)


def _is_interrupt(error: BaseException | None) -> bool:
    """Returns whether an error is an interrupt, or what an import made of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
