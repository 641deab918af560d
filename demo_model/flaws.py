"""Pictures that are wrong on purpose, and what a judge should say of every picture."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from demo_model.characters import Accessory, Species
from demo_model.draw import Camera, PictureSpec, draw_picture, head_of
from demo_model.figure import WHOLE, Anatomy
from demo_model.labels import IGNORED, picture_labels
from demo_model.poses import JOINTS, Limb, Pose
from demo_model.props import Prop


class Flaw(StrEnum):
    """What is wrong with a picture."""

    NONE = "none"
    EXTRA_ARM = "an arm too many"
    MISSING_ARM = "an arm too few"
    EXTRA_LEG = "a leg too many"
    MISSING_LEG = "a leg too few"
    EXTRA_EYE = "three eyes"
    MISSING_EYE = "one eye"
    SMEARED_FACE = "a smeared face"
    NO_THIN_PARTS = "bow, antenna or whiskers missing"
    BLURRED = "blurred"
    TWO_FIGURES = "two characters"
    NO_FIGURE = "nobody"
    BLACK = "a black picture"


LIMBS = (Flaw.EXTRA_ARM, Flaw.MISSING_ARM, Flaw.EXTRA_LEG, Flaw.MISSING_LEG)
FORM_CLASSES = {
    "arms": 4, "legs": 4, "eyes": 4, "figures": 3, "face": 2, "sharp": 2,
    "bow": 2, "antenna": 2, "whiskers": 2,
}  # fmt: skip
"""What people notice: counts, and whether a part is right (1) or wrong (0)."""
THIN = ("bow", "antenna", "whiskers")


def flaws_of(picture: PictureSpec) -> list[Flaw]:
    """The flaws that can be seen in a picture."""
    flaws = [Flaw.TWO_FIGURES, Flaw.NO_FIGURE, Flaw.BLACK, Flaw.BLURRED]
    if picture.camera is not Camera.BEHIND:
        flaws += [Flaw.EXTRA_EYE, Flaw.MISSING_EYE, Flaw.SMEARED_FACE]
    if picture.camera is not Camera.CLOSE and picture.pose is not Pose.SLEEPING:
        flaws += [Flaw.EXTRA_ARM, Flaw.EXTRA_LEG, Flaw.MISSING_LEG]
        if picture.held.prop in (Prop.NONE, Prop.BALL, Prop.SIGN, Prop.HAT):
            flaws.append(Flaw.MISSING_ARM)
    if any(_thin_parts(picture).values()):
        flaws.append(Flaw.NO_THIN_PARTS)
    return flaws


def draw_flawed(
    picture: PictureSpec, flaw: Flaw, rng: Random, width: int, height: int
) -> Image.Image:
    """Renders a picture with a flaw."""
    image = draw_picture(picture, width, height, anatomy=_anatomy(picture, flaw, rng))
    if flaw is Flaw.BLACK:
        return Image.new("RGB", (width, height), rng.choice(((0, 0, 0), (0, 0, 0), (18, 14, 22))))
    if flaw is Flaw.BLURRED:
        radius = rng.uniform(0.012, 0.03) * min(width, height)
        return image.filter(ImageFilter.GaussianBlur(radius))
    if flaw is Flaw.SMEARED_FACE:
        return _smeared(image, *head_of(picture, width, height), rng)
    return image


def form_labels(picture: PictureSpec, flaw: Flaw = Flaw.NONE) -> dict[str, int]:
    """Class numbers of `FORM_CLASSES`; what cannot be seen is `IGNORED`."""
    counts = {
        Flaw.EXTRA_ARM: ("arms", 3), Flaw.MISSING_ARM: ("arms", 1), Flaw.EXTRA_LEG: ("legs", 3),
        Flaw.MISSING_LEG: ("legs", 1), Flaw.EXTRA_EYE: ("eyes", 3), Flaw.MISSING_EYE: ("eyes", 1),
        Flaw.TWO_FIGURES: ("figures", 2), Flaw.NO_FIGURE: ("figures", 0),
        Flaw.BLACK: ("figures", 0), Flaw.SMEARED_FACE: ("face", 0), Flaw.BLURRED: ("sharp", 0),
    }  # fmt: skip
    labels = {"arms": 2, "legs": 2, "eyes": 2, "figures": 1, "face": 1, "sharp": 1}
    labels |= {name: int(there) for name, there in _thin_parts(picture).items()}
    if flaw in counts:
        name, count = counts[flaw]
        labels[name] = count
    if flaw is Flaw.NO_THIN_PARTS:
        labels |= dict.fromkeys(THIN, 0)
    hidden: set[str] = set()
    if picture.camera is Camera.BEHIND:
        hidden |= {"eyes", "face"}
        if picture.held.prop in (Prop.BOOK, Prop.GUITAR) or picture.pose is Pose.THINKING:
            hidden.add("arms")
    if picture.camera is Camera.CLOSE or picture.pose is Pose.SLEEPING:
        hidden |= {"arms", "legs"}
    if flaw is Flaw.SMEARED_FACE:
        hidden |= {"eyes", "whiskers"}
    if labels["figures"] != 1:
        hidden |= set(labels) - {"figures", "sharp"}
    if flaw is Flaw.BLACK:
        hidden.add("sharp")
    return labels | dict.fromkeys(hidden, IGNORED)


def seen_labels(picture: PictureSpec, flaw: Flaw = Flaw.NONE) -> dict[str, int]:
    """Class numbers of everything that a judge names, form included."""
    shown = picture_labels(picture)
    if flaw in (Flaw.BLACK, Flaw.NO_FIGURE, Flaw.TWO_FIGURES):
        kept = () if flaw is Flaw.BLACK else ("scene", "trees", "style")
        shown = {name: label if name in kept else IGNORED for name, label in shown.items()}
    elif flaw is Flaw.SMEARED_FACE:
        shown |= dict.fromkeys(("emotion", "eye_color", "species"), IGNORED)
    elif flaw is Flaw.NO_THIN_PARTS and picture.character.accessory is Accessory.BOW:
        shown["accessory"] = list(Accessory).index(Accessory.NONE)
    return shown | form_labels(picture, flaw)


def _thin_parts(picture: PictureSpec) -> dict[str, bool]:
    spec, front = picture.character, picture.camera is not Camera.BEHIND
    hat = picture.held.prop is Prop.HAT
    return {
        "bow": spec.accessory is Accessory.BOW and not hat,
        "antenna": spec.species is Species.ROBOT
        and not hat
        and spec.accessory not in (Accessory.BOW, Accessory.CROWN)
        and picture.camera is not Camera.CLOSE,
        "whiskers": spec.species is Species.CAT and front,
    }


def _anatomy(picture: PictureSpec, flaw: Flaw, rng: Random) -> Anatomy:
    joints = JOINTS[picture.pose]
    match flaw:
        case Flaw.EXTRA_ARM:
            return replace(WHOLE, arms=3, extra=(_another(rng, joints.arms, arms=True),))
        case Flaw.EXTRA_LEG:
            return replace(WHOLE, legs=3, extra=(_another(rng, joints.legs, arms=False),))
        case Flaw.MISSING_ARM:
            return replace(WHOLE, arms=1)
        case Flaw.MISSING_LEG:
            return replace(WHOLE, legs=1)
        case Flaw.EXTRA_EYE:
            return replace(WHOLE, eyes=3)
        case Flaw.MISSING_EYE:
            return replace(WHOLE, eyes=1)
        case Flaw.NO_THIN_PARTS:
            return replace(WHOLE, thin=False)
        case Flaw.TWO_FIGURES:
            return replace(WHOLE, figures=2)
        case Flaw.NO_FIGURE:
            return replace(WHOLE, figures=0)
        case _:
            return WHOLE


def _another(rng: Random, limbs: tuple[Limb, ...], *, arms: bool) -> Limb:
    """A limb of some other pose whose end is away from those of the figure."""
    while True:
        joints = JOINTS[rng.choice(list(Pose))]
        joints = joints.mirrored() if rng.random() < 0.5 else joints
        limb = rng.choice(joints.arms if arms else joints.legs)
        ends = [(x, y) for *_, (x, y) in limbs] + [(1 - x, y) for *_, (x, y) in limbs]
        x, y = limb[2]
        if all((x - ex) ** 2 + (y - ey) ** 2 > 0.14**2 for ex, ey in ends):
            return limb


def _smeared(image: Image.Image, x: float, y: float, radius: float, rng: Random) -> Image.Image:
    """Pulls patches of a face about and blurs them, as unfinished generations do."""
    side = round(2 * radius)
    corner = (round(x - radius), round(y - radius))
    face = image.crop((*corner, corner[0] + side, corner[1] + side))
    for _ in range(rng.randint(4, 7)):
        size = round(side * rng.uniform(0.22, 0.42))
        left, top = (round(side * rng.uniform(0.15, 0.55)) for _ in range(2))
        patch = face.crop((left, top, left + size, top + size)).rotate(rng.uniform(-70, 70))
        dx, dy = (round(side * rng.uniform(-0.22, 0.22)) for _ in range(2))
        face.paste(patch, (left + dx, top + dy), _disc(size))
    face = face.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.012, 0.035)))
    result = image.copy()
    result.paste(face, corner, _disc(side))
    return result


def _disc(size: int) -> Image.Image:
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).ellipse((0, 0, size - 1, size - 1), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(size / 16))
