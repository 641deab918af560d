"""Captions fit their pictures, and no letter becomes a box."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castmate import captions
from castmate.captions import typeface_for, unreadable
from castmate.storyboard import MAX_SCENE_CHARACTERS

WIDTH = 300


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_every_line_of_any_text_fits_and_has_only_letters_of_its_font(text: str) -> None:
    face = typeface_for(text, 20)
    lines = face.wrapped(text, WIDTH, 3)
    assert len(lines) <= 3
    for line in lines:
        assert face.font.getlength(line) <= WIDTH
        assert not face.lacks(line)


def test_words_stay_whole_where_they_fit_and_what_is_cut_ends_in_dots() -> None:
    text = " ".join(["lighthouse"] * 30)
    lines = typeface_for(text, 20).wrapped(text, WIDTH, 3)
    assert all(set(line.removesuffix("...").split()) <= {"lighthouse"} for line in lines[:2])
    assert lines[2].endswith("...")
    assert typeface_for("short", 20).wrapped("short", WIDTH, 3) == ["short"]


def test_a_word_of_thousands_of_letters_is_measured_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []
    face = typeface_for("0" * MAX_SCENE_CHARACTERS, 20)
    getlength = captions.Font.getlength

    def counting(font: captions.Font, text: str) -> float:
        measured.append(text)
        return getlength(font, text)

    monkeypatch.setattr(captions.Font, "getlength", counting)
    lines = face.wrapped("0" * MAX_SCENE_CHARACTERS, WIDTH, 3)
    assert [len(line) > 10 for line in lines] == [True] * 3
    assert lines[2].endswith("...")
    assert len(measured) < 100


def test_without_a_font_of_the_system_accents_are_left_off_and_the_rest_is_a_question_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captions, "_system_fonts", lambda pixels: ())
    face = typeface_for("Zoë \u2013 \u65e5\u672c in Malmö", 20)
    assert face.wrapped("Zoë \u2013 \u65e5\u672c in Malmö", WIDTH, 1) == ["Zoe - ? in Malmo"]
    assert unreadable("Zoë")
    assert not unreadable("Zoe")
