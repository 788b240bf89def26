"""What a simulated run needs of the process that it runs in: to be left alone."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep this process's own affairs out of the run, and the run's out of them.

    The collector would run the `finally` of abandoned coroutines at times that depend on what else the process
    did.  They run in the end instead, on dead machines, and what they raise then is of no interest.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # A machine may be killed between the making of a coroutine and its first step.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        logging.disable(level)
        sys.unraisablehook = hook
        if was_enabled:
            gc.enable()
