"""Text from outside inside Markdown: shown as it is, never obeyed."""

import re

from edgemask.checks import printable

_LONGEST = 300  # characters of a name or sentence
_MARKUP = re.compile(r"[\\`*_{}\[\]<>&#!|~@]|(?<=\w)://|(?<=www)\.")
_NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_REFERENCES = ("@", "#")  # what GitHub makes links to people and issues of, even where it came as an entity


def prose(text: str) -> str:
    """A sentence, or a part of one, that may hold names from outside.

    Every character that Markdown, GitHub or HTML could take for markup, for a link or for a reference becomes an
    entity, which is shown and no more; mentions and issue numbers are broken by a space of no width. What is returned
    must not stand at the beginning of a line, where a number or a dash would begin a list.
    """
    return _MARKUP.sub(lambda match: _entities(match[0]), _shortened(text))


def code(text: str) -> str:
    """A name as code: GitHub looks for no mentions and links in it. Entities, since no quoting holds every name."""
    return f"<code>{prose(text)}</code>"


def _entities(characters: str) -> str:
    entities = "".join(_NAMED.get(character, f"&#{ord(character)};") for character in characters)
    return f"{entities}&#8203;" if characters in _REFERENCES else entities


def _shortened(text: str) -> str:
    text = printable(text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
