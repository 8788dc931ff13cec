"""Files that survive a kill, a full disk and a second process."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def whole_file(path):
    """A binary file to write, under a temporary name until it is whole, so that a kill at any
    moment leaves the old file or the new one. OSError: it cannot be written, by name."""
    path = Path(path)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # a name of its own for each process
    try:
        with open(new, "wb") as file:
            yield file
        os.replace(new, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # it has its name, or it could not be made
            new.unlink()


def locked(path, otherwise=None):
    """An open file that only one process can hold, until it is closed or the process ends, however
    it ends. ValueError: another one holds it; ``otherwise`` says what to do. None: wait for it.
    Where the system has no such locks (Windows) nothing is locked."""
    file = open(path, "w")
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if otherwise is not None else 0))
        except (BlockingIOError, PermissionError):
            file.close()
            raise ValueError(f"another process works in {Path(path).parent}: {otherwise}") from None
        except OSError:  # a file system without locks
            pass
    return file
