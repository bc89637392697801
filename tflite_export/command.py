"""Starts the command `tf-lsq`, so that Ctrl-C ends it without a traceback at any time.

Importing the command takes a while; nothing but `sys` is imported before that works.
"""

import sys

INTERRUPTED = 130  # As shells report SIGINT.
_MOMENT = 0.01  # Seconds.


def main() -> None:
    """Runs the command."""
    sys.unraisablehook = _repeat_interrupt
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


def _repeat_interrupt(unraisable: "sys.UnraisableHookArgs") -> None:
    """Repeats an interrupt that Python ignored, as it came in a finalizer."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    import _thread
    import threading

    # Not from here, where it would be ignored again.
    threading.Timer(_MOMENT, _thread.interrupt_main).start()


def _is_interrupt(error: BaseException | None) -> bool:
    """Returns whether an error is an interrupt, or what an import made of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
