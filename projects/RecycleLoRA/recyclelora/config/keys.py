"""Dotted keys of a config as users write them: ``dataloader.test.'streets night'.subset``."""

import re
from collections.abc import Sequence

from recyclelora.common.validation import short_repr

_PART = re.compile(
    r"""'((?:[^'\\]|\\.)*)'(?=[.=]|$)  |  "((?:[^"\\]|\\.)*)"(?=[.=]|$)  |  ([^.=]*)""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s*:)?""", re.DOTALL)
_PLAIN = re.compile(r"[\w-]+")


def split_override(override: str) -> tuple[list[str], str]:
    """Split ``key=value`` into the names of its key and the text of its value.

    Names are separated by dots. A name with a dot, an equals sign, a quote, or spaces at its ends
    must be in single or double quotes. Inside the quotes, a backslash precedes a quote or another
    backslash.

    Parameters
    ----------
    override : str
        The override.

    Returns
    -------
    names : list of str
        The names.
    text : str
        The text of the value.

    Raises
    ------
    ValueError
        If the override does not have this form.

    Examples
    --------
    >>> split_override("dataloader.test.'v1.5 night'.subset=3")
    (['dataloader', 'test', 'v1.5 night', 'subset'], '3')
    """
    names, position = [], 0
    while True:
        found = _PART.match(override, position)
        quoted = next((text for text in found.groups()[:2] if text is not None), None)
        name = found[3] if quoted is None else _unescape(quoted)
        names.append(name)
        position = found.end()
        end = override[position : position + 1]
        if end == "=" and override[0] != "=" and (quoted is not None or name == name.strip()):
            return names, override[position + 1 :]
        if end != "." or (quoted is None and name != name.strip()):
            raise ValueError(
                f"expected an override of the form key=value, got {short_repr(override)}: put "
                """names with special characters in quotes, as in "a.'b c'.d=3\""""
            )
        position += 1


def join_names(names: Sequence[str]) -> str:
    """Return the key of these names, the inverse of :func:`split_override`.

    Parameters
    ----------
    names : Sequence[str]
        The names.

    Returns
    -------
    str
        The dotted key.

    Examples
    --------
    >>> join_names(["test", "streets night", "it's", "0"])
    'test.\\'streets night\\'."it\\'s".0'
    """
    return ".".join(_quote(name) for name in names)


def replace_quoted_keys(text: str) -> tuple[str, dict[str, str]]:
    """Replace the quoted keys of dictionaries, which Hydra cannot read, in the text of a value.

    Parameters
    ----------
    text : str
        The text.

    Returns
    -------
    plain : str
        The text with plain keys.
    names : dict of str to str
        The original name of each plain key.

    Examples
    --------
    >>> replace_quoted_keys("{'streets night':{subset:'a:b'}}")
    ("{quoted_key_0:{subset:'a:b'}}", {'quoted_key_0': 'streets night'})
    """
    names: dict[str, str] = {}

    def replace(found: re.Match) -> str:
        if found[2] is None:  # a text
            return found[0]
        key = f"quoted_key_{len(names)}"
        names[key] = _unescape(found[1][1:-1])
        return key + found[2]

    return _QUOTED.sub(replace, text), names


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _quote(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    quote = '"' if "'" in name else "'"
    escaped = name.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return quote + escaped + quote
