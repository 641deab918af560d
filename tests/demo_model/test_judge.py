"""The judge, and pictures that are wrong on purpose."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from demo_model import warm
from demo_model.characters import Accessory, Species, random_character
from demo_model.draw import Camera, PictureSpec, draw_picture, random_picture
from demo_model.evaluate import judged_pictures, score
from demo_model.flaws import Flaw, draw_flawed, flaws_of, form_labels, seen_labels
from demo_model.judge import CLASSES, Judge, flawed_batch, load_judge, malformed
from demo_model.labels import IGNORED
from demo_model.poses import Pose
from demo_model.scenes import Scene
from demo_model.tokens import build_tokenizer
from demo_model.warm import SHARED, WORDS, shipped_network, warm_network


def _picture(species: Species, **changes: object) -> PictureSpec:
    rng = random.Random(8)
    while True:
        spec = random_character(rng, held_out=False)
        if spec.species is species and spec.accessory is Accessory.BOW:
            return PictureSpec(spec, Pose.STANDING, Scene.MEADOW, **changes)  # type: ignore[arg-type]


def test_the_judge_names_what_renders_show() -> None:
    pictures = judged_pictures(16)
    renders = [draw_picture(picture, 256, 256) for picture in pictures]
    scores = score(load_judge(), renders, pictures)
    assert scores["pose"] >= 0.9
    assert scores["scene"] == 1.0


@pytest.mark.parametrize("flaw", [flaw for flaw in Flaw if flaw is not Flaw.NONE])
def test_every_flaw_can_be_seen(flaw: Flaw) -> None:
    picture = _picture(Species.CAT)
    assert flaw in flaws_of(picture)
    rng = random.Random(1)
    broken = draw_flawed(picture, flaw, rng, 128, 128)
    assert broken.size == (128, 128)
    assert broken.tobytes() != draw_picture(picture, 128, 128).tobytes()
    assert form_labels(picture, flaw) != form_labels(picture)


def test_labels_say_what_is_wrong_and_leave_out_what_cannot_be_seen() -> None:
    picture = _picture(Species.ROBOT)
    assert form_labels(picture)["bow"] == 1
    assert form_labels(picture, Flaw.NO_THIN_PARTS)["bow"] == 0
    assert form_labels(picture, Flaw.EXTRA_ARM)["arms"] == 3
    assert form_labels(picture, Flaw.TWO_FIGURES)["arms"] == IGNORED
    assert form_labels(_picture(Species.CAT, camera=Camera.BEHIND))["eyes"] == IGNORED
    assert form_labels(_picture(Species.CAT, camera=Camera.CLOSE))["legs"] == IGNORED
    black = seen_labels(picture, Flaw.BLACK)
    assert {name for name, label in black.items() if label != IGNORED} == {"figures"}


def test_every_label_is_a_class_of_its_head() -> None:
    rng = random.Random(2)
    for _ in range(200):
        picture = random_picture(rng)
        for flaw in (Flaw.NONE, *flaws_of(picture)):
            labels = seen_labels(picture, flaw)
            assert labels.keys() == CLASSES.keys()
            assert all(label < CLASSES[name] for name, label in labels.items())


def test_the_judge_looks_at_256_pixels_of_pictures_of_any_size() -> None:
    judge = Judge()
    assert judge.px == 256
    rng = random.Random(3)
    pixels, flaws = flawed_batch(rng, [random_picture(rng) for _ in range(4)], judge.px)
    assert pixels.shape == (4, 3, 256, 256)
    assert len(flaws) == 4
    seen = judge.predict(torch.zeros(1, 3, 96, 160))
    assert set(seen) == set(CLASSES)


def test_a_picture_is_malformed_when_a_count_is_wrong_or_a_thin_part_missing() -> None:
    labels = form_labels(_picture(Species.CAT))
    right = {name: torch.tensor([label]) for name, label in labels.items()}
    assert malformed(right, labels, 0) == []
    assert malformed(right | {"arms": torch.tensor([3])}, labels, 0) == ["arms"]
    assert malformed(right | {"whiskers": torch.tensor([0])}, labels, 0) == ["whiskers"]


def test_training_starts_where_the_shipped_weights_end() -> None:
    shipped = shipped_network().state_dict()
    for name, weight in warm_network().state_dict().items():
        if not name.startswith("vae.") and name not in (*WORDS, SHARED):
            assert torch.equal(weight, shipped[name]), name


def test_words_keep_their_meaning_and_new_ones_start_as_the_unknown_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = build_tokenizer().get_vocab()
    known = {word: number for word, number in words.items() if word != "dragon"}
    older = SimpleNamespace(from_file=lambda _: SimpleNamespace(token_to_id=known.get))
    monkeypatch.setattr(warm, "Tokenizer", older)
    warm._start.cache_clear()
    try:
        state, shipped = warm_network().state_dict(), shipped_network().state_dict()
    finally:
        warm._start.cache_clear()
    for name in WORDS:
        cat, dragon, unknown = (state[name][words[word]] for word in ("cat", "dragon", "[UNK]"))
        assert torch.equal(cat, shipped[name][words["cat"]])
        assert (cat - unknown).norm() > 2 * (dragon - unknown).norm()
