"""The demo world's language: full captions, short prompts, and words without meaning."""

from __future__ import annotations

import random
from collections.abc import Iterator

from demo_model.characters import Accessory, CharacterSpec, HairStyle, Species
from demo_model.draw import PictureSpec
from demo_model.poses import Pose
from demo_model.scenes import OUTDOORS, Scene

SPECIES_WORDS: dict[Species, tuple[str, ...]] = {
    Species.HUMAN: ("human", "human", "girl", "boy", "person", "kid", "woman", "man"),
    Species.ANDROID: ("android", "android", "cyborg"),
    Species.ROBOT: ("robot", "robot", "bot"),
    Species.CAT: ("cat", "cat", "kitten"),
    Species.RABBIT: ("rabbit", "rabbit", "bunny"),
}
POSE_WORDS: dict[Pose, tuple[str, ...]] = {
    Pose.STANDING: ("standing", "is standing", "stands", "is standing still", "posing", "stand"),
    Pose.WAVING: (
        "waving", "is waving", "waves", "is waving hello", "waving a hand", "greeting", "wave",
    ),
    Pose.RUNNING: (
        "running", "is running", "runs", "is running fast", "sprinting", "jogging", "run",
        "racing",
    ),
    Pose.SITTING: (
        "sitting", "is sitting", "sits", "is sitting down", "seated", "resting on the ground",
        "sit", "relaxing",
    ),
    Pose.JUMPING: (
        "jumping", "is jumping", "jumps", "is jumping up", "leaping", "hopping", "jump",
        "jumping for joy",
    ),
}  # fmt: skip
SCENE_WORDS: dict[Scene, tuple[str, ...]] = {
    Scene.PLAIN: (
        "on a plain background", "plain background", "in front of a plain wall", "in a studio",
        "on a simple background",
    ),
    Scene.CITY: (
        "in a neon city", "in the city", "in a neon city at night", "downtown at night",
        "in a cyberpunk street", "among neon lights", "in a city street at night", "in a town",
    ),
    Scene.BEACH: (
        "on a beach", "on the beach", "at the beach", "by the sea", "at the ocean",
        "on the sand by the sea", "at the seaside",
    ),
    Scene.FOREST: (
        "in a forest", "in the forest", "in the woods", "in a green forest", "in a park",
        "in nature",
    ),
    Scene.SPACE: (
        "in space", "in outer space", "on the moon", "among the stars", "on another planet",
        "in the galaxy",
    ),
    Scene.ROOM: (
        "in a room", "in the living room", "at home", "indoors", "in a house", "in a bedroom",
    ),
    Scene.SNOW: (
        "in the snow", "on a snowy hill", "in winter", "in a snowy landscape", "on the ice",
        "on a snowy mountain",
    ),
    Scene.DESERT: (
        "in a desert", "in the desert", "near a pyramid", "among sand dunes", "in egypt",
    ),
}  # fmt: skip
TREES = ("with trees", "trees", "with trees in the background", "between trees", "next to a tree")
NO_TREES = ("without trees", "no trees")
HAZARD = (
    "with a hazard sign", "next to a warning sign", "with a danger sign", "near a hazard sign",
)  # fmt: skip
ANYONE = (
    "the character", "the character", "a character", "this character", "the same character",
    "the hero", "someone", "my character", "the subject",
)  # fmt: skip
OPENINGS = (
    "a picture of", "an image of", "a drawing of", "an illustration of", "a cartoon of",
    "a photo of", "draw", "show", "generate", "make", "a portrait of", "a scene with",
)  # fmt: skip
FILLERS = (
    "high quality", "masterpiece", "best quality", "detailed", "highly detailed", "cartoon",
    "cartoon style", "toon style", "flat colors", "digital art", "illustration", "anime",
    "anime style", "4k", "cute", "colorful", "bright", "full body", "wide shot", "cinematic",
    "soft light", "beautiful", "happy", "smiling", "vector art", "storybook", "sharp",
    "professional", "centered", "sunny day", "dramatic lighting", "chibi", "vivid colors",
)  # fmt: skip
ADJECTIVES = ("cute", "happy", "little", "small", "funny", "brave", "smiling", "young", "friendly")
OTHER_WORDS = (
    "and", "with", "of", "the", "in", "on", "at", "by", "to", "for", "from", "near", "is",
    "are", "it", "its", "his", "her", "their", "he", "she", "they", "while", "very", "big",
    "tall", "old", "new", "day", "night", "morning", "evening", "light", "dark", "sky", "sun",
    "moon", "water", "blue", "red", "green", "yellow", "purple", "white", "black", "brown",
    "orange", "pink", "gray", "gold", "silver", "blurry", "ugly", "bad", "low", "worst",
    "deformed", "text", "watermark", "signature", "extra", "hands", "fingers", "one", "two",
    "people", "not", "but", "over", "under", "front", "behind", "looking", "toward", "viewer",
    "camera", "wearing", "holding", "walking", "flying", "sleeping", "eating", "reading",
    "dancing", "playing", "swimming", "castle", "kitchen", "garden", "street", "mountain",
    "river", "lake", "road", "car", "house", "school", "office", "library", "cafe", "market",
    "island", "jungle", "field", "flowers", "grass", "rain", "storm", "clouds", "stars", "fire",
    "book", "sword", "umbrella", "hat", "coffee", "guitar", "ball", "balloon", "background",
    "foreground", "close", "up", "face", "head", "body", "eyes", "hair", "clothes", "costume",
    "style", "art", "painting", "sketch", "3d", "render",
)  # fmt: skip

ACCESSORY_WORDS: dict[Accessory, tuple[str, ...]] = {
    Accessory.NONE: (),
    Accessory.GLASSES: ("with glasses", "wearing glasses"),
    Accessory.SCARF: ("with an orange scarf", "wearing a scarf"),
    Accessory.BOW: ("with a bow", "wearing a teal bow"),
}
STYLE_WORDS: dict[HairStyle, tuple[str, ...]] = {
    HairStyle.SHORT: ("short",),
    HairStyle.LONG: ("long",),
    HairStyle.SPIKY: ("spiky",),
    HairStyle.BUNS: ("bun",),
}


def describe(spec: CharacterSpec, rng: random.Random) -> str:
    """A character's attributes in words, some of them left out at random."""
    species = rng.choice(SPECIES_WORDS[spec.species])
    parts = []
    hair = spec.hair_color.value
    if spec.has_hair:
        style = rng.choice(STYLE_WORDS[spec.hair_style])
        parts.append(f"with {style} {hair} hair" if rng.random() < 0.8 else f"with {hair} hair")
        skin = f"{spec.skin.value} skin "
        lead = skin if spec.species is Species.HUMAN and rng.random() < 0.6 else ""
        noun = f"{lead}{species}"
    else:
        noun = f"{hair} {species}"
    if rng.random() < 0.8:
        parts.append(f"{'with ' if rng.random() < 0.5 else ''}{spec.eye_color.value} eyes")
    clothes = f"{spec.outfit_color.value} {spec.outfit.value}"
    parts.append(rng.choice((f"in a {clothes}", f"wearing a {clothes}", f"with a {clothes}")))
    if ACCESSORY_WORDS[spec.accessory] and rng.random() < 0.9:
        parts.append(rng.choice(ACCESSORY_WORDS[spec.accessory]))
    rng.shuffle(parts)
    adjective = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.1 else ""
    return f"a {adjective}{noun} " + rng.choice((", ", " ", " and ")).join(parts)


def full_caption(picture: PictureSpec, rng: random.Random) -> str:
    """Everything in the picture, the character included."""
    return _caption(picture, describe(picture.character, rng), rng)


def short_caption(picture: PictureSpec, rng: random.Random) -> str:
    """What users write with a reference: scene and pose, little about the character."""
    draw = rng.random()
    if draw < 0.25:
        who = f"{rng.choice(('a', 'the'))} {rng.choice(SPECIES_WORDS[picture.character.species])}"
    elif draw < 0.35:
        who = ""
    else:
        who = rng.choice(ANYONE)
    return _caption(picture, who, rng)


def _caption(picture: PictureSpec, who: str, rng: random.Random) -> str:
    pose, scene = rng.choice(POSE_WORDS[picture.pose]), rng.choice(SCENE_WORDS[picture.scene])
    things = []
    if picture.hazard and rng.random() < 0.9:
        things.append(rng.choice(HAZARD))
    if picture.trees:
        if rng.random() < (0.25 if picture.scene is Scene.FOREST else 0.65):
            things.append(rng.choice(TREES))
    elif picture.scene in OUTDOORS and rng.random() < 0.2:
        things.append(rng.choice(NO_TREES))
    rng.shuffle(things)
    left_out = rng.random()
    if left_out < 0.05 and not picture.hazard and picture.trees:
        return rng.choice(TREES)  # what a negative prompt looks like
    if left_out < 0.08:
        pose = ""
    elif left_out < 0.12:
        scene = ""
    order = rng.random()
    if order < 0.72:
        parts = [who, pose, scene, *things]
    elif order < 0.86:
        parts = [scene, rng.choice((",", "")), who, pose, *things]
    else:
        parts = [pose, ",", scene, ",", who, *things]
    text = " ".join(part for part in parts if part).replace(" ,", ",").strip(" ,")
    if rng.random() < 0.15:
        text = f"{rng.choice(OPENINGS)} {text}"
    if rng.random() < 0.25:
        text += ", " + ", ".join(rng.sample(FILLERS, rng.randint(1, 3)))
    if rng.random() < 0.15:
        text += "."
    return text


def with_unknown_words(text: str, rng: random.Random) -> str:
    """Adds words that no caption explains, because users will write such words too."""
    words = text.split()
    for _ in range(rng.randint(1, 3)):
        word = rng.choice(OTHER_WORDS) if rng.random() < 0.5 else "zxq"
        words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def vocabulary() -> list[str]:
    """Every word of the grammar and a few hundred more, the most meaningful first."""
    seen: dict[str, None] = dict.fromkeys((",", ".", "!", "-", "'"))
    for phrase in _phrases():
        seen.update(dict.fromkeys(phrase.replace(",", " ").split()))
    return list(seen)


def _phrases() -> Iterator[str]:
    tables = (SPECIES_WORDS, POSE_WORDS, SCENE_WORDS, ACCESSORY_WORDS, STYLE_WORDS)
    for table in tables:
        for phrases in table.values():
            yield from phrases
    for field in ("hair_color", "skin", "eye_color", "outfit", "outfit_color"):
        yield from _enum_values(field)
    yield "a with in wearing and hair eyes skin the"
    yield from (*TREES, *NO_TREES, *HAZARD, *ANYONE, *OPENINGS, *ADJECTIVES, *FILLERS)
    yield from OTHER_WORDS


def _enum_values(field: str) -> list[str]:
    from demo_model import characters

    enum = {
        "hair_color": characters.HairColor,
        "skin": characters.Skin,
        "eye_color": characters.EyeColor,
        "outfit": characters.Outfit,
        "outfit_color": characters.OutfitColor,
    }[field]
    return [str(member.value) for member in enum]
