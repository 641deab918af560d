"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from castmate.files import open_atomically, write_atomically


def test_a_file_that_cannot_be_finished_leaves_the_old_one_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_atomically(path, b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_seen_only_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with open_atomically(path) as stream:
        stream.write(b"first half, ")
        assert not path.exists()
        stream.write(b"second half")
    assert path.read_bytes() == b"first half, second half"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def interrupted() -> None:
        with open_atomically(path) as stream:
            stream.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".png")
    write_atomically(path, b"picture")
    assert path.read_bytes() == b"picture"
