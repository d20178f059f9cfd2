"""The noun phrases of an explanation, by lists of words instead of a parser: what a detector is asked to find.

Explanations are one plain English sentence. Cutting it at punctuation, function words and the verbs that link parts of
a description leaves runs of adjectives and nouns. Words that speak about the picture as such ("element", "pattern of")
are no things to be found; a phrase of nothing else is dropped, unless the sentence holds no other.
"""

from __future__ import annotations

import re

MAX_PHRASES = 8
MAX_WORDS = 5
"""A longer run keeps its last words: the head of an English noun phrase stands at its end."""

_ARTICLES = frozenset(
    "a an the this that these those its their his her some any each every several many various different other "
    "another both all no such two three four multiple single one".split()
)
_LINKS = frozenset(
    """
    of in on at by to for with without within from into onto over under above below behind beside between among across
    along around through near against upon off out up down inside outside toward towards beneath during before after
    about like as than via per and or but nor so yet if while when where which who whom whose what how because though
    although also often usually typically commonly generally possibly perhaps very more most less least much too rather
    quite slightly highly not only just even especially particularly mainly mostly primarily either neither e.g i.e etc
    is are was were be been being am has have had having do does did can could may might must shall should will would
    it they them he she we you i there here itself themselves
    """.split()
)
_LINKING_VERBS = frozenset(
    """
    show shows showing shown feature features featuring featured contain contains containing depict depicts depicting
    depicted represent represents representing include includes including included resemble resembles resembling
    suggest suggests suggesting indicate indicates indicating appear appears appearing seem seems seen found used using
    use uses made make makes making wear wears wearing hold holds holding stand stands standing sit sits sitting lie
    lies lying look looks looking create creates creating form forms forming cover covers covering covered surround
    surrounds surrounding surrounded characterized characterised associated related evoke evokes evoking convey conveys
    conveying describe describes describing highlight highlights highlighting focus focuses focusing focused based
    consist consists consisting composed arranged placed located positioned viewed visible present facing hanging
    running walking moving called known taken placed set attached connected
    """.split()
)
_ABOUT_THE_PICTURE = frozenset(
    """
    image images picture pictures photo photos photograph photographs element elements feature concept concepts pattern
    patterns part parts portion area areas region regions section object objects thing things scene scenes visual
    semantic abstract high low level type types kind kinds sort variety form style aspect aspects appearance background
    foreground highlighted nothing something side sides presence set series group collection piece pieces view detail
    details close closeup close-up shot high-level low-level
    """.split()
)
_BREAKS = _ARTICLES | _LINKS | _LINKING_VERBS
_CUT = re.compile(r"[^\w\s'/-]+|\s[-/]+\s")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def noun_phrases(text: str) -> tuple[str, ...]:
    """Up to MAX_PHRASES noun phrases in lower case, in the order of the text, each once; empty if it holds no word.

    >>> noun_phrases("A brown dog with floppy ears, sitting on the grass.")
    ('brown dog', 'floppy ears', 'grass')
    """
    runs = _runs(text.lower())
    things = [run for run in runs if not _ABOUT_THE_PICTURE.issuperset(run)]
    phrases = (" ".join(run[-MAX_WORDS:]) for run in things or runs)
    return tuple(dict.fromkeys(phrases))[:MAX_PHRASES]


def _runs(text: str) -> list[list[str]]:
    """Runs of words that no cut, function word or linking verb parts, without articles."""
    runs: list[list[str]] = [[]]
    for piece in _CUT.split(text):
        for word in _WORD.findall(piece):
            if word in _BREAKS:
                runs.append([])
            else:
                runs[-1].append(word)
        runs.append([])
    return [run for run in runs if run]
