"""Characters, pictures and references."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from demo_model.autoencoder import render_batch_of
from demo_model.characters import held_out_characters, random_character, training_characters
from demo_model.data import facing_one_way
from demo_model.draw import (
    PictureSpec,
    draw_picture,
    draw_reference,
    head_of,
    is_mirrored,
    random_picture,
)
from demo_model.poses import Pose
from demo_model.references import REFERENCES, write_references
from demo_model.scenes import Scene


def test_the_same_seed_gives_the_same_character() -> None:
    first = [random_character(random.Random(7), held_out=False) for _ in range(3)]
    again = [random_character(random.Random(7), held_out=False) for _ in range(3)]
    assert first == again


def test_a_longer_list_of_characters_begins_with_the_shorter_one() -> None:
    assert training_characters(20)[:5] == training_characters(5)


def test_held_out_characters_never_appear_in_training() -> None:
    held_out = {spec.look for spec in held_out_characters(100)}
    trained = {spec.look for spec in training_characters(2000)}
    assert len(held_out) == 100
    assert not held_out & trained
    rng = random.Random(1)
    assert not any(random_picture(rng).character.is_held_out for _ in range(200))


def test_the_shipped_references_are_held_out_characters() -> None:
    assert all(spec.is_held_out for spec in REFERENCES.values())
    assert len({spec.species for spec in REFERENCES.values()}) == len(REFERENCES)


def test_references_are_small_files(tmp_path: Path) -> None:
    paths = write_references(tmp_path)
    assert [path.stem for path in paths] == list(REFERENCES)
    assert all(path.stat().st_size < 60_000 for path in paths)


def test_a_picture_spec_always_gives_the_same_pixels_at_any_size() -> None:
    spec = random_picture(random.Random(3))
    for width, height in ((96, 96), (160, 96), (96, 160)):
        picture = draw_picture(spec, width, height)
        assert picture.size == (width, height)
        assert picture.tobytes() == draw_picture(spec, width, height).tobytes()


def test_every_pose_and_every_scene_looks_different() -> None:
    character = training_characters(1)[0]
    pictures = {
        draw_picture(PictureSpec(character, pose, scene), 64, 64).tobytes()
        for pose in Pose
        for scene in Scene
    }
    assert len(pictures) == len(Pose) * len(Scene)


def test_a_reference_stands_on_white() -> None:
    image = draw_reference(held_out_characters(1)[0], 128)
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((64, 44)) != (255, 255, 255)


def test_training_shows_every_figure_facing_one_way() -> None:
    (spec,) = held_out_characters(1)
    pictures = [PictureSpec(spec, Pose.FLYING, Scene.PLAIN, seed=seed) for seed in range(8)]
    mirrored = [is_mirrored(picture) for picture in pictures]
    assert set(mirrored) == {True, False}
    assert mirrored == [head_of(picture, 64, 64)[0] < 32 for picture in pictures]
    pixels = render_batch_of(pictures, 64, 64)
    for before, after, turn in zip(pixels, facing_one_way(pixels, pictures), mirrored, strict=True):
        assert torch.equal(after, before.flip(-1) if turn else before)
