"""Ctrl-C while a script of examples/ imports its packages ends with one line, as it does later. A
script imports this first: packages that are being imported swallow a KeyboardInterrupt."""

import os
import signal
import sys
from pathlib import Path

# in the environment of a process that another one started: the other's number
PARENT = "CLP_WORKER_OF"


def _stop(*_):
    said = b"" if PARENT in os.environ else b"\nstopped before anything was begun\n"
    os.write(2, said)
    os._exit(130)


def imports_are_over():
    """From here on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_main = getattr(sys.modules["__main__"], "__file__", None)
if _main and Path(_main).parent.name == "examples":  # the script itself, not one that is imported
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
