"""Captions and the tokenizer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from demo_model.captions import full_caption, short_caption, with_unknown_words
from demo_model.config import BOS, EOS, MAX_SEQUENCE_LENGTH, PAD, UNK
from demo_model.draw import random_picture
from demo_model.evaluate import short_prompt
from demo_model.faces import Emotion
from demo_model.poses import Pose
from demo_model.prompts import free_prompts
from demo_model.props import NOTHING
from demo_model.scenes import Scene
from demo_model.sheet import SCENES
from demo_model.tokens import build_tokenizer, encode, save_tokenizer
from demo_model.words import EMOTION_WORDS, POSE_WORDS, PROP_WORDS, SCENE_WORDS, TREES


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer()


def test_every_caption_tokenizes_without_loss(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    for _ in range(500):
        picture = random_picture(rng)
        captions = full_caption(picture, rng), short_caption(picture, rng), short_prompt(picture)
        assert all(UNK not in tokenizer.encode(text).ids for text in captions)


def test_the_prompts_of_the_sheet_are_known_words(tokenizer: Tokenizer) -> None:
    assert all(UNK not in tokenizer.encode(text).ids for text in SCENES)


def test_ids_are_fixed_length_between_begin_and_end(tokenizer: Tokenizer) -> None:
    short, long = encode(tokenizer, ["A cat, running!", "cat " * 100]).tolist()
    assert len(short) == len(long) == MAX_SEQUENCE_LENGTH
    assert short[0] == long[0] == BOS
    assert short[short.index(EOS) + 1 :] == [PAD] * (MAX_SEQUENCE_LENGTH - short.index(EOS) - 1)
    assert long[-1] == EOS


def test_unknown_words_become_the_unknown_token(tokenizer: Tokenizer) -> None:
    text = with_unknown_words("the cat is running", random.Random(2))
    assert len(text.split()) > 4
    assert UNK in tokenizer.encode("a quokka").ids


def test_the_saved_tokenizer_adds_the_marks_and_nothing_else(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer.json")
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the cat").ids
    assert ids[0] == BOS
    assert ids[-1] == EOS
    assert len(ids) == 4


def test_what_a_caption_does_not_name_is_the_usual() -> None:
    rng = random.Random(5)
    for _ in range(1500):
        picture = random_picture(rng)
        text = short_caption(picture, rng)
        if text in TREES:
            continue
        named = [phrase for phrase in POSE_WORDS[picture.pose] if phrase in text]
        assert named or picture.pose is Pose.STANDING
        named = [phrase for phrase in SCENE_WORDS[picture.scene] if phrase in text]
        assert named or picture.scene is Scene.PLAIN
        named = [phrase for phrase in EMOTION_WORDS[picture.emotion] if phrase in text]
        assert named or picture.emotion is Emotion.HAPPY
        held = picture.held
        colored = [phrase for phrase in PROP_WORDS[held.prop] if "{}" in phrase]
        named = [phrase for phrase in colored if phrase.replace("{}", held.color) in text]
        assert named or not colored or held.color is NOTHING.color


def test_a_sign_is_harmless_unless_it_warns() -> None:
    rng = random.Random(6)
    signs = 0
    for _ in range(3000):
        picture = random_picture(rng)
        words = set(short_caption(picture, rng).replace(",", " ").split())
        signs += "sign" in words and not picture.hazard
        assert picture.hazard or not words & {"hazard", "warning", "danger"}
    assert signs > 30


def test_marks_and_unknown_words_do_not_use_up_the_prompt(tokenizer: Tokenizer) -> None:
    def read(text: str) -> list[str]:
        return [token for token in tokenizer.encode(text).tokens if token != "[PAD]"]

    assert read('a "neon-lit" city') == read("a neon lit city")


def test_no_free_prompt_is_a_training_caption(tokenizer: Tokenizer) -> None:
    def words(text: str) -> tuple[str, ...]:
        return tuple(token for token in tokenizer.encode(text).tokens if token.isalnum())

    free = {words(prompt) for prompt in free_prompts()}
    assert len(free) == 50
    rng = random.Random(24)
    pictures = [random_picture(rng) for _ in range(4000)]
    captions = {words(make(p, rng)) for p in pictures for make in (full_caption, short_caption)}
    assert not free & captions
