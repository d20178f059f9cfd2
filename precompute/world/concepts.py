"""The closed list of what the world can show: 96 concepts of five kinds, with their words.

A concept's first phrase is its usual wording; the others appear in captions too and are understood
by the parser. Hypernyms are the groups it belongs to: naming only a group is *partly* right.
Objects are glyphs of Noto Color Emoji (SIL Open Font License 1.1), shipped as a sprite sheet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One thing that can be seen. ``id`` is stable and used in every table."""

    id: str
    kind: str
    """object, background, texture, colour or photometric."""
    family: str
    phrases: tuple[str, ...]
    hypernyms: tuple[str, ...] = ()
    glyph: str = ""


def _objects(family: str, hypernyms: tuple[str, ...], rows: str) -> tuple[Concept, ...]:
    """Read lines of ``glyph id | phrase | phrase ... [> extra hypernym, ...]``."""
    concepts = []
    for row in rows.strip().splitlines():
        words, _, extra = row.partition(">")
        glyph, name = words.split("|")[0].split()
        phrases = tuple(phrase.strip() for phrase in words.split("|")[1:])
        more = tuple(word.strip() for word in extra.split(",") if word.strip())
        concepts.append(
            Concept(id=name, kind="object", family=family, phrases=phrases, hypernyms=more + hypernyms, glyph=glyph)
        )
    return tuple(concepts)


ANIMALS = _objects(
    "animal",
    ("animal",),
    """
    🐈 cat | a cat | a kitten with a long tail > pet
    🐘 elephant | an elephant | a big grey elephant
    🦀 crab | a crab | a red crab with claws > sea creature
    🐧 penguin | a penguin | a black and white penguin > bird
    🦉 owl | an owl | a brown owl > bird
    🐎 horse | a horse | a brown horse > horse kind
    🦓 zebra | a zebra | a zebra with striped fur > horse kind
    🐠 fish | a tropical fish | a yellow and blue fish > sea creature
    """,
)
PLANTS = _objects(
    "plant",
    ("plant",),
    """
    🌲 pine | a pine tree | an evergreen tree > tree
    🌴 palm | a palm tree | a tropical palm > tree
    🌵 cactus | a cactus | a green cactus
    🌷 tulip | a tulip | a pink tulip > flower
    🌻 sunflower | a sunflower | a yellow sunflower > flower
    🌹 rose | a rose | a red rose > flower
    🍄 mushroom | a mushroom | a red mushroom with white dots
    🍁 maple | a maple leaf | an autumn leaf
    """,
)
FOOD = _objects(
    "food",
    ("food",),
    """
    🍎 red_apple | a red apple | a ripe red apple > fruit
    🍏 green_apple | a green apple | an unripe green apple > fruit
    🍌 banana | a banana | a ripe banana > fruit
    🍉 watermelon | a watermelon slice | a slice of watermelon > fruit
    🍕 pizza | a slice of pizza | a pizza
    🍔 hamburger | a hamburger | a burger
    🥕 carrot | a carrot | an orange carrot > vegetable
    🍦 ice_cream | an ice cream | an ice cream cone
    """,
)
VEHICLES = _objects(
    "vehicle",
    ("vehicle",),
    """
    🚗 red_car | a red car | a red automobile > car
    🚙 blue_car | a blue car | a blue automobile > car
    🚌 bus | a bus | a city bus
    🚲 bicycle | a bicycle | a bike with two wheels
    🚜 tractor | a tractor | a farm tractor
    🚁 helicopter | a helicopter | a flying helicopter > aircraft
    ⛵ sailboat | a sailboat | a boat with a sail
    🚀 rocket | a rocket | a space rocket > aircraft
    """,
)
PEOPLE = _objects(
    "person",
    ("person",),
    """
    👶 baby | a baby | a small baby
    👮 police | a police officer | a policeman
    👷 builder | a construction worker | a builder with a hard hat
    💂 guard | a royal guard | a guard with a tall hat
    🎅 santa | a santa claus | a santa with a white beard
    👸 princess | a princess | a princess with a tiara
    🥷 ninja | a ninja | a ninja in black
    💃 dancer | a dancer | a dancer in a red dress
    """,
)
CLOTHING = _objects(
    "clothing",
    ("clothing",),
    """
    👕 shirt | a light blue shirt | a shirt
    👖 jeans | a pair of jeans | blue jeans
    👗 dress | a blue dress | a dress
    👢 boot | a brown boot | a boot > footwear
    👠 high_heel | a red high heel | a high heeled shoe > footwear
    🎩 top_hat | a top hat | a black top hat > headwear
    👑 crown | a golden crown | a crown > headwear
    🧦 socks | a pair of socks | warm socks
    """,
)
BUILDINGS = _objects(
    "building",
    ("building",),
    """
    🏠 house | a house | a house with a red roof
    🏰 castle | a castle | a castle with towers
    ⛪ church | a church | a church with a cross
    ⛺ tent | a tent | a camping tent
    🏭 factory | a factory | a factory with chimneys
    🎡 ferris_wheel | a ferris wheel | a big fairground wheel
    🗼 tower | a red tower | a tall steel tower
    🏢 office | an office block | an office building
    """,
)
THINGS = _objects(
    "thing",
    ("thing",),
    """
    ⏰ clock | an alarm clock | a clock
    📕 book | a red book | a closed book
    🔑 key | a golden key | a key
    ☂ umbrella | an umbrella | a purple umbrella
    🎸 guitar | a guitar | an electric guitar > musical instrument
    🥁 drum | a drum | a drum with sticks > musical instrument
    ⚽ football | a football | a soccer ball
    🎈 balloon | a red balloon | a balloon
    """,
)


def _backgrounds() -> tuple[Concept, ...]:
    rows = {
        "grass": ("grass", "a green meadow", "landscape nature"),
        "sky": ("a cloudy sky", "blue sky with clouds", "landscape nature"),
        "sea": ("sea waves", "the blue sea", "landscape nature"),
        "sand": ("desert sand", "sandy dunes", "landscape nature"),
        "snow": ("snow", "a snowy field", "landscape nature"),
        "night": ("a starry night sky", "stars at night", "landscape nature"),
        "sunset": ("a sunset", "an orange evening sky", "landscape nature"),
        "brick": ("a brick wall", "red bricks", "wall"),
        "wood": ("wooden planks", "a wooden wall", "wall"),
        "road": ("a road receding in perspective", "a receding road with depth", "perspective depth"),
        "floor": ("a checkered floor in perspective", "floor tiles receding with depth", "perspective depth"),
        "corridor": ("a corridor in perspective", "a long hallway receding with depth", "perspective depth"),
    }
    return tuple(
        Concept(
            id=name,
            kind="background",
            family=groups.split()[0],
            phrases=(first, second),
            hypernyms=(*groups.split(), "background"),
        )
        for name, (first, second, groups) in rows.items()
    )


def _textures() -> tuple[Concept, ...]:
    rows = {
        "horizontal_stripes": ("horizontal stripes", "stripes lying flat", "stripes"),
        "vertical_stripes": ("vertical stripes", "upright stripes", "stripes"),
        "diagonal_stripes": ("diagonal stripes", "slanted stripes", "stripes"),
        "checkerboard": ("a checkerboard", "a pattern of squares in two colours", "pattern"),
        "polka_dots": ("polka dots", "a dotted pattern", "pattern"),
        "grid_lines": ("a grid of lines", "crossing grid lines", "pattern"),
        "circles": ("concentric circles", "rings inside rings", "pattern"),
        "zigzag": ("a zigzag pattern", "zigzag lines", "pattern"),
    }
    return tuple(
        Concept(
            id=name,
            kind="texture",
            family=group,
            phrases=(first, second),
            hypernyms=tuple(dict.fromkeys((group, "pattern", "texture"))),
        )
        for name, (first, second, group) in rows.items()
    )


PLAIN_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (250, 215, 45),
    "green": (50, 160, 70),
    "blue": (40, 95, 205),
    "purple": (130, 60, 170),
    "pink": (245, 145, 190),
    "brown": (125, 80, 45),
    "grey": (135, 135, 135),
}

COLOURS = tuple(
    Concept(
        id=f"plain_{name}",
        kind="colour",
        family="colour",
        phrases=(f"plain {name}", f"a flat {name} area"),
        hypernyms=("colour",),
    )
    for name in PLAIN_COLOURS
)

PHOTOMETRIC = (
    Concept(id="blurred", kind="photometric", family="depth of field",
            phrases=("an out of focus background with shallow depth", "blurred and out of focus"),
            hypernyms=("depth", "photometric")),
    Concept(id="dark", kind="photometric", family="lighting",
            phrases=("a dark photo", "dim light"), hypernyms=("lighting", "photometric")),
    Concept(id="monochrome", kind="photometric", family="lighting",
            phrases=("a black and white photo", "no colour at all"), hypernyms=("photometric",)),
)  # fmt: skip

OBJECTS = ANIMALS + PLANTS + FOOD + VEHICLES + PEOPLE + CLOTHING + BUILDINGS + THINGS
BACKGROUNDS = _backgrounds()
TEXTURES = _textures()
CONCEPTS: tuple[Concept, ...] = OBJECTS + BACKGROUNDS + TEXTURES + COLOURS + PHOTOMETRIC
CONCEPT_INDEX: dict[str, int] = {concept.id: index for index, concept in enumerate(CONCEPTS)}
CONCEPT_BY_ID: dict[str, Concept] = {concept.id: concept for concept in CONCEPTS}

N_OWNERS = len(CONCEPTS) - len(PHOTOMETRIC)
"""Concepts that can own a pixel; photometric factors lie over whatever owns it."""

OUTSIDE = 255
"""Owner of a pixel that shows nothing (white paper, or masked away)."""

HYPERNYMS: tuple[str, ...] = tuple(sorted({word for concept in CONCEPTS for word in concept.hypernyms}))
