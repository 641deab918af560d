"""The demo world's language: full captions, short prompts, and words without meaning."""

from __future__ import annotations

import random
from collections.abc import Iterator

from demo_model.characters import CharacterSpec, EyeColor, HairColor, OutfitColor, Skin, Species
from demo_model.draw import Camera, PictureSpec, Style
from demo_model.faces import Emotion
from demo_model.poses import Pose
from demo_model.props import NOTHING, Held, Prop
from demo_model.scenes import OUTDOORS, UNDER_THE_SKY, Scene
from demo_model.stage import Daytime, Weather
from demo_model.words import (
    ACCESSORY_WORDS,
    ANYONE,
    CAMERA_WORDS,
    DAYTIME_WORDS,
    EMOTION_WORDS,
    HAIR_WORDS,
    HAZARD,
    NO_TREES,
    OUTFIT_WORDS,
    POSE_WORDS,
    PROP_WORDS,
    ROLES,
    SCENE_WORDS,
    SPECIES_WORDS,
    STYLE_WORDS,
    TREES,
    WEATHER_WORDS,
)

OPENINGS = (
    "a picture of", "an image of", "a drawing of", "an illustration of", "a cartoon of",
    "a photo of", "draw", "show", "generate", "make", "a scene with",
)  # fmt: skip
FILLERS = (
    "high quality", "masterpiece", "best quality", "detailed", "highly detailed", "ultra detailed",
    "digital art", "illustration", "4k", "8k", "cute", "colorful", "bright", "cinematic",
    "soft light", "warm light", "beautiful", "storybook", "sharp", "professional", "centered",
    "dramatic lighting", "chibi", "vivid colors", "epic", "mysterious", "cozy", "dynamic pose",
    "trending on artstation", "octane render", "concept art", "sci fi movie style",
    "sleek and high tech vibe", "summer vibes", "movie poster", "wallpaper", "studio lighting",
    "depth of field", "glowing", "sparkles", "fantasy", "retro", "simple", "clean lines",
)  # fmt: skip
ADJECTIVES = (
    "cute", "little", "small", "funny", "brave", "young", "old", "tiny", "clever", "cool",
    "futuristic", "fantasy", "magical", "lazy", "tired", "lone", "strong", "famous",
)  # fmt: skip
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
    "birthday", "cake", "food", "pizza", "apple", "fruit", "basket", "tree", "bird", "horse",
    "bicycle", "train", "plane", "boat", "bridge", "door", "window", "table", "chair", "desk",
    "computer", "phone", "camera", "game", "team", "friends", "family", "people", "crowd",
    "treasure", "map", "torch", "lantern", "potion", "ghost", "star", "heart", "gift", "flag",
    "basketball", "football", "tennis", "skateboard", "snowman", "snowball", "campfire", "throne",
    "wings", "tail", "mask", "gloves", "boots", "shoes", "belt", "backpack", "bag", "jewelry",
    "telling", "making", "holding", "giving", "going", "wearing", "displaying", "says", "love",
    "carefully", "slowly", "quickly", "together", "alone", "everywhere", "somewhere", "inside",
    "outside", "around", "through", "across", "between", "next", "after", "before", "during",
    "my", "your", "this", "that", "some", "many", "all", "no", "as", "like", "into", "up",
    "mood", "vibe", "atmosphere", "scene", "world", "story", "adventure", "magic", "wind",
    "spring", "summer", "autumn", "winter", "monday", "sunday", "weekend", "holiday", "party",
)  # fmt: skip


def describe(spec: CharacterSpec, rng: random.Random) -> str:
    """A character's attributes in words, some of them omitted at random."""
    species = rng.choice(SPECIES_WORDS[spec.species])
    parts = []
    hair = spec.hair_color.value
    if spec.has_hair:
        cut = rng.choice(HAIR_WORDS[spec.hair_style])
        parts.append(f"with {cut} {hair} hair" if rng.random() < 0.8 else f"with {hair} hair")
        skin = f"{spec.skin.value} skin "
        lead = skin if spec.species is Species.HUMAN and rng.random() < 0.6 else ""
        noun = f"{lead}{species}"
    else:
        noun = f"{hair} {species}"
    if rng.random() < 0.8:
        parts.append(f"{'with ' if rng.random() < 0.5 else ''}{spec.eye_color.value} eyes")
    clothes = f"{spec.outfit_color.value} {rng.choice(OUTFIT_WORDS[spec.outfit])}"
    parts.append(rng.choice((f"in a {clothes}", f"wearing a {clothes}", f"with a {clothes}")))
    if ACCESSORY_WORDS[spec.accessory] and rng.random() < 0.9:
        parts.append(rng.choice(ACCESSORY_WORDS[spec.accessory]))
    rng.shuffle(parts)
    return f"a {noun} {' '.join(parts)}"


def full_caption(picture: PictureSpec, rng: random.Random) -> str:
    """Everything that is in the picture, the character included."""
    return _caption(picture, describe(picture.character, rng), rng)


def short_caption(picture: PictureSpec, rng: random.Random) -> str:
    """What users write with a reference: scene and pose, little about the character."""
    draw = rng.random()
    if draw < 0.2:
        who = f"{rng.choice(('a', 'the'))} {rng.choice(SPECIES_WORDS[picture.character.species])}"
    elif draw < 0.4:
        adjective = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.4 else ""
        who = f"{rng.choice(('a', 'the'))} {adjective}{rng.choice(ROLES)}"
    elif draw < 0.5:
        who = ""
    else:
        who = rng.choice(ANYONE)
    return _caption(picture, who, rng)


def _caption(picture: PictureSpec, who: str, rng: random.Random) -> str:
    if picture.trees and not picture.hazard and rng.random() < 0.02:
        return rng.choice(TREES)  # what a negative prompt looks like
    pose, scene = rng.choice(POSE_WORDS[picture.pose]), rng.choice(SCENE_WORDS[picture.scene])
    # What is not said takes its default: a standing figure, a plain background.
    if picture.pose is Pose.STANDING and rng.random() < 0.45:
        pose = ""
    if picture.scene is Scene.PLAIN and rng.random() < 0.5:
        scene = ""
    things, lead = _things(picture, rng), _lead(picture, rng)
    mood = _said(EMOTION_WORDS[picture.emotion], picture.emotion is Emotion.HAPPY, rng)
    if mood and " " not in mood and who.startswith(("a ", "the ")) and rng.random() < 0.6:
        article, _, noun = who.partition(" ")
        who = f"{article} {mood} {noun}"
    elif mood:
        things.append(mood)
    order = rng.random()
    if order < 0.72:
        parts = [who, pose, scene, *_joined(things, rng)]
    elif order < 0.86:
        parts = [scene, rng.choice((",", "")), who, pose, *_joined(things, rng)]
    else:
        parts = [pose, ",", scene, ",", who, *_joined(things, rng)]
    text = " ".join([*lead, *(part for part in parts if part)])
    if rng.random() < 0.25:
        text += ", " + ", ".join(rng.sample(FILLERS, rng.randint(1, 3)))
    if rng.random() < 0.15:
        text += "."
    return _tidy(text)


def _things(picture: PictureSpec, rng: random.Random) -> list[str]:
    """Phrases for everything but pose, place and mood, in any order."""
    things = []
    if picture.hazard and rng.random() < 0.95:
        things.append(rng.choice(HAZARD))
    if picture.trees:
        if rng.random() < (0.25 if picture.scene is Scene.FOREST else 0.75):
            things.append(rng.choice(TREES))
    elif picture.scene in OUTDOORS and rng.random() < 0.2:
        things.append(rng.choice(NO_TREES))
    if picture.held.prop is not Prop.NONE:
        things.append(_holding(picture.held, rng))
    if picture.scene in UNDER_THE_SKY:
        clear = picture.weather is Weather.CLEAR
        things.append(_said(WEATHER_WORDS[picture.weather], clear, rng))
        by_day = picture.daytime is Daytime.DAY
        things.append(_said(DAYTIME_WORDS[picture.daytime], by_day, rng))
    elif rng.random() < 0.1:  # indoors and among the stars it changes nothing
        words = rng.choice((*DAYTIME_WORDS.values(), *WEATHER_WORDS.values()))
        things.append(rng.choice(words))
    rng.shuffle(things)
    return [thing for thing in things if thing]


def _holding(held: Held, rng: random.Random) -> str:
    """A phrase for a prop, with its colour unless that is the usual one."""
    phrases = PROP_WORDS[held.prop]
    colored = [phrase for phrase in phrases if "{}" in phrase]
    color = _said((held.color.value,), held.color is NOTHING.color, rng)
    if color and colored:
        return rng.choice(colored).replace("{}", color)
    return rng.choice(phrases).replace("{} ", "")


def _lead(picture: PictureSpec, rng: random.Random) -> list[str]:
    """How a caption begins: the style, the view, or a word that asks for a picture."""
    style = _said(STYLE_WORDS[picture.style], picture.style is Style.TOON, rng)
    camera = _said(CAMERA_WORDS[picture.camera], picture.camera is Camera.WHOLE, rng)
    named = [phrase for phrase in (style, camera) if phrase]
    rng.shuffle(named)
    if not named:
        return [rng.choice(OPENINGS)] if rng.random() < 0.15 else []
    join = rng.choice(("of", ",", "of", ""))
    return [phrase for name in named for phrase in (name, join)]


def _said(phrases: tuple[str, ...], usual: bool, rng: random.Random) -> str:
    """One of the phrases; defaults are seldom mentioned."""
    return rng.choice(phrases) if not usual or rng.random() < 0.12 else ""


def _joined(things: list[str], rng: random.Random) -> list[str]:
    return [word for thing in things for word in (rng.choice((",", "", "")), thing)]


def _tidy(text: str) -> str:
    words = text.replace(",", " , ").split()
    kept = [word for n, word in enumerate(words) if word != "," or (n and words[n - 1] != ",")]
    return " ".join(kept).replace(" ,", ",").strip(" ,").replace(", .", ".").replace(",.", ".")


def with_unknown_words(text: str, rng: random.Random) -> str:
    """Adds words that no caption explains, because users will write such words too."""
    words = text.split()
    for _ in range(rng.randint(1, 4)):
        word = rng.choice(MEANINGLESS) if rng.random() < 0.6 else "zxq"
        words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def vocabulary() -> list[str]:
    """Every word of the grammar and a few hundred more, the most meaningful first."""
    seen: dict[str, None] = dict.fromkeys((",", ".", "!"))
    for phrase in (*_meaningful(), *OTHER_WORDS):
        seen.update(dict.fromkeys(phrase.replace(",", " ").replace("{}", "").split()))
    return list(seen)


def _meaningful() -> Iterator[str]:
    for table in (SPECIES_WORDS, POSE_WORDS, SCENE_WORDS, EMOTION_WORDS, WEATHER_WORDS,
                  DAYTIME_WORDS, CAMERA_WORDS, STYLE_WORDS, PROP_WORDS, ACCESSORY_WORDS,
                  HAIR_WORDS, OUTFIT_WORDS):  # fmt: skip
        for phrases in table.values():
            yield from phrases
    for kind in (HairColor, Skin, EyeColor, OutfitColor):
        yield from (str(member.value) for member in kind)
    yield "a with in wearing and hair eyes skin the of"
    yield from (*TREES, *NO_TREES, *HAZARD, *ANYONE, *ROLES, *OPENINGS, *ADJECTIVES, *FILLERS)


_MEANT = {word for phrase in _meaningful() for word in phrase.split()}
MEANINGLESS = tuple(word for word in dict.fromkeys(OTHER_WORDS) if word not in _MEANT)
"""Words that the tokenizer knows and no picture shows."""
