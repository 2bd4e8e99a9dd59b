"""LazyConfigs: shipped ones by name, overrides, validation, and what may change on resume."""

from .files import config_names, get_config

__all__ = ["config_names", "get_config"]
