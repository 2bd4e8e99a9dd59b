"""What the paper compares with, on the same code: each a function of a backbone, as ``adapt`` is.

The frozen backbone, LoRA and PiSSA are ``adapt`` itself, with other settings.
"""

from .full import fine_tune

__all__ = ["fine_tune"]
