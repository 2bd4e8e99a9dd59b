"""Set a name for users without an entry in the password database, as in many containers."""

import getpass
import os


def ensure_user_name() -> None:
    """Set LOGNAME to ``uid12345`` if neither a variable nor the system has the user's name.

    When torchvision is imported, PyTorch names a cache folder after the user, and fails without a
    name.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
