"""From what the model wrote to an explanation: the announced opening is removed, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Iterable


def clean(raw: str, prefixes: Iterable[str] = ()) -> str:
    """The answer without a known opening such as "The highlighted element in the image is a".

    Only at the very start, only once (the longest that fits), only at the end of a word ("… is a" is not taken from
    "… is an eye"), regardless of case. Case, words, punctuation and inner spaces of the rest stay as written.

    Args:
        raw: what the model wrote; kept elsewhere untouched.
        prefixes: openings to remove.

    Returns:
        The explanation; empty if no letter or digit is left, which the caller records as a failure.
    """
    text = raw.strip()
    for prefix in sorted({prefix.strip() for prefix in prefixes} - {""}, key=lambda known: (-len(known), known)):
        rest = text[len(prefix) :]
        if text[: len(prefix)].casefold() == prefix.casefold() and not (rest[:1].isalnum() and prefix[-1].isalnum()):
            text = rest.lstrip(" \t\n:")
            break
    return text if any(letter.isalnum() for letter in text) else ""
