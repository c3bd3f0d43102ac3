"""Checks of single values. Each returns the value in its plain form or raises `name: expected ..., got ...`.

A check is called with the name of the value, for the message, and the value.
"""

import difflib
import json
import numbers
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from edgemask.errors import UsageError

NAME_LIMIT = 200
_SHOWN_LIMIT = 100
_ALIKE = 0.7  # difflib's ratio; three letters of which two are the same, as in gpu and cpu, have 0.67
_BIDIRECTIONAL_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Check = Callable[[str, Any], Any]


def is_control(character: str) -> bool:
    """Whether a character could steer a terminal, reorder the text around it, or cannot be encoded."""
    category = unicodedata.category(character)
    return category in {"Cc", "Cs", "Zl", "Zp"} or character in _BIDIRECTIONAL_CONTROLS


def printable(text: str) -> str:
    r"""Returns text with its control characters as escapes (`\x1b`, `\u202e`), safe to print or draw."""
    return "".join(c.encode("unicode_escape").decode("ascii") if is_control(c) else c for c in text)


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """Returns the remedy for a name that is none of the known ones.

    Args:
        name: what was given.
        names: those that there are.
        otherwise: the remedy where none of them is close, upper and lower case being the same.
    """
    known = {one.casefold(): one for one in names}
    close = difflib.get_close_matches(name[:NAME_LIMIT].casefold(), known, 1, _ALIKE)
    return f"did you mean {known[close[0]]}?" if close else otherwise


class Described(str):
    """Words about a value, for `refuse` to show as they are, in place of the value itself."""

    __slots__ = ()


def refuse(name: str, expected: str, got: object, remedy: str | None = None) -> NoReturn:
    """Raises UsageError; a value that came from outside is shown in ASCII and cut to a line."""
    shown = got if isinstance(got, Described) else ascii(got)
    if len(shown) > _SHOWN_LIMIT:
        shown = shown[: _SHOWN_LIMIT - 3] + "..."
    raise UsageError(f"{name}: expected {expected}, got {shown}", remedy)


def whole(low: int, high: int) -> Check:
    """Checks for an int (or numpy integer) from low to high, both allowed."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
            refuse(name, f"a whole number from {low} to {high}", value)
        return int(value)

    return check


def number(low: float, high: float) -> Check:
    """Checks for a finite int or float (or numpy's) from low to high, both allowed."""

    def check(name: str, value: Any) -> float:
        is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        # Compared before the conversion, since float() of a huge int overflows; NaN fails every comparison.
        if not is_real or not low <= value <= high:
            refuse(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    return check


def text(name: str, value: Any) -> str:
    """Checks for 1 to 200 characters, none of them a control character."""
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LIMIT or any(map(is_control, value)):
        refuse(name, f"text of 1 to {NAME_LIMIT} characters without control characters", value)
    return value


def pattern(expression: str, meaning: str) -> Check:
    """Checks for text that the regular expression matches as a whole; meaning is said in the message."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(expression, value):
            refuse(name, meaning, value)
        return value

    return check


def choice(*options: str) -> Check:
    """Checks for one of the options."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            refuse(name, " or ".join(options), value)
        return value

    return check


def several(item: Check, low: int, high: int) -> Check:
    """Checks for a list or tuple of low to high entries that pass the item's check, and makes it a tuple."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            count = str(low) if low == high else f"{low} to {high}"
            refuse(name, f"a list of {count} entries", value)
        return tuple(item(f"{name}[{index}]", entry) for index, entry in enumerate(value))

    return check


def optional(check: Check) -> Check:
    """Checks for None or what the other check takes."""
    return lambda name, value: None if value is None else check(name, value)


def json_object(name: str, value: Any) -> dict[str, Any]:
    """Checks for a mapping that JSON can hold, and returns a deep copy as JSON gives it back."""
    if not isinstance(value, Mapping):
        refuse(name, "a dictionary of JSON values", value)
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: expected JSON values, got one that is not ({error})") from error
    return copy


def texts_by_name(name: str, value: Any) -> dict[str, str]:
    """Checks for a mapping from text to text, each as `text` takes it."""
    entries = json_object(name, value).items()
    return {text(name, key): text(f"{name}[{key!a}]", entry) for key, entry in entries}


def record_of(checks: Mapping[str, Check]) -> Check:
    """Checks for a mapping with just these keys, each value as its check takes it, and returns a deep copy."""

    def check(name: str, value: Any) -> dict[str, Any]:
        record = json_object(name, value)
        if record.keys() != checks.keys():
            refuse(name, f"the keys {', '.join(checks)}", sorted(record))
        for key, check_one in checks.items():
            check_one(f"{name}[{key!r}]", record[key])
        return record

    return check
