"""Made-up explanations for benchmarks: a small grammar whose texts are many, distinct and read like real ones.

A text is a code: topic (a thing and an aspect of it), attribute, context. Its embedding is the unit sum of its parts'
embeddings, because embedding a hundred thousand sentences one by one would take minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from backend.text_encoders import TextEncoder

THINGS = (
    "dog cat horse bird fish insect snake elephant bear monkey tree flower leaf mushroom fruit bread vegetable "
    "cake cup bottle plate knife chair table bed lamp window door roof stairs bridge tower church castle fence "
    "wall road railway car bus truck bicycle motorcycle train airplane boat ship wheel engine traffic-light sign "
    "screen keyboard telephone camera clock book newspaper map flag letter number face hand eye hair hat shoe "
    "shirt dress glove crowd child dancer soldier runner swimmer ball racket guitar drum piano mountain river "
    "lake beach desert snow field forest cloud sunset star fire smoke water glass metal wood brick stone fabric "
    "rope feather fur scale"
).split()
ASPECTS = ("{}", "the outline of {}", "the texture of {}")
ATTRIBUTES = (
    "red orange yellow green blue purple pink brown black white grey golden silver dark bright pale striped dotted "
    "checkered plain shiny rough smooth wet dusty broken round square long thin thick curved pointed blurred distant "
    "small large old modern wooden"
).split()
CONTEXTS = (
    "in the foreground,in the background,at the left edge,at the right edge,in the corner,seen from above,"
    "seen from below,with shallow depth of field,receding in perspective,in deep shadow,in bright sunlight,at night,"
    "in the rain,under water,in a mirror,behind glass,on a plain wall,on grass,on sand,on a wooden floor,"
    "against a cloudy sky,near the horizon,in a group,standing alone,in motion,held in a hand,next to a person,"
    "partly hidden,with a logo on it,with writing on it,in a repeating pattern,in parallel lines,in black and white,"
    "in a cartoon style,in a close-up view,in a crowded street,in an empty room,inside a vehicle,on a shelf,on a sign"
).split(",")
N_TOPICS = len(THINGS) * len(ASPECTS)
NO_CONTEXT = len(CONTEXTS)
_WEIGHTS = {"thing": 1.0, "aspect": 0.4, "attribute": 0.6, "context": 0.6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Texts as parallel arrays of indices into THINGS x ASPECTS, ATTRIBUTES and CONTEXTS."""

    topic: Int64[np.ndarray, " text"]
    attribute: Int64[np.ndarray, " text"]
    context: Int64[np.ndarray, " text"]
    """NO_CONTEXT for none."""

    def packed(self) -> Int64[np.ndarray, " text"]:
        """One number per text; equal numbers are equal texts."""
        return (self.topic * len(ATTRIBUTES) + self.attribute) * (NO_CONTEXT + 1) + self.context

    @classmethod
    def unpack(cls, packed: Int64[np.ndarray, " text"]) -> Codes:
        """The inverse of ``packed``."""
        rest, context = np.divmod(packed, NO_CONTEXT + 1)
        topic, attribute = np.divmod(rest, len(ATTRIBUTES))
        return cls(topic=topic, attribute=attribute, context=context)

    def texts(self) -> list[str]:
        """The sentences."""
        columns = zip(self.topic.tolist(), self.attribute.tolist(), self.context.tolist(), strict=True)
        return [sentence(*codes) for codes in columns]


def topic_name(topic: int) -> str:
    """What a topic is about, e.g. ``the outline of dog``."""
    thing, aspect = divmod(topic, len(ASPECTS))
    return ASPECTS[aspect].format(THINGS[thing])


def sentence(topic: int, attribute: int, context: int) -> str:
    """The text of one code."""
    thing, aspect = divmod(topic, len(ASPECTS))
    words = f"{ATTRIBUTES[attribute]} {THINGS[thing]}"
    article = "an" if words[0] in "aeiou" else "a"
    told = ASPECTS[aspect].format(f"{article} {words}")
    return told if context == NO_CONTEXT else f"{told} {CONTEXTS[context]}"


def embeddings(codes: Codes, encoder: TextEncoder) -> Float32[np.ndarray, "text d"]:
    """Unit rows: the weighted sum of the embeddings of a text's parts."""
    aspects = [aspect.format("something") for aspect in ASPECTS]
    contexts = encoder.encode(CONTEXTS)
    parts = (
        (encoder.encode(THINGS), codes.topic // len(ASPECTS), _WEIGHTS["thing"]),
        (encoder.encode(aspects), codes.topic % len(ASPECTS), _WEIGHTS["aspect"]),
        (encoder.encode(ATTRIBUTES), codes.attribute, _WEIGHTS["attribute"]),
        (np.concatenate([contexts, np.zeros_like(contexts[:1])]), codes.context, _WEIGHTS["context"]),
    )
    rows = np.zeros((len(codes.topic), contexts.shape[1]), np.float32)
    for table, places, weight in parts:
        rows += np.float32(weight) * table[places]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
