"""The page: every contender in a table of its class, reasons instead of figures, nothing remote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.readme import filled, step_caching
from benchmarks.readme import latency as latency_table
from benchmarks.record import read_all
from benchmarks.report import CLASSES, main, page
from tests.benchmarks.samples import SAMPLES, latency, load, quality, write


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for sample in SAMPLES:
        write(tmp_path, sample())
    return tmp_path


def tables(text: str) -> dict[str, str]:
    found = re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    captions = [re.search(r"<caption>(.*?)</caption>", table) for table in found]
    return {match[1]: table for match, table in zip(captions, found, strict=True) if match}


def test_the_page_is_well_formed_and_loads_nothing(results: Path) -> None:
    text = page(read_all(results))
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(text)
    assert open_tags == []
    assert not re.search(r'(src|href)="(?!#)', text)
    assert text.count("<svg") == 5


def test_classes_never_share_a_table(results: Path) -> None:
    found = tables(page(read_all(results)))
    exact, cached = found[CLASSES["exact"]], found[CLASSES["cached"]]
    assert "castmate-fast" not in exact
    assert "diffusers-eager" not in cached


def test_a_contender_that_cannot_run_has_a_reason_and_no_figure(results: Path) -> None:
    text = page(read_all(results))
    row = re.search(r"<tr><td>tensorrt</td>(.*?)</tr>", text)
    assert row
    assert re.fullmatch(
        r'<td class="reason" colspan="\d+">no TensorRT plans &lt;here&gt;</td>', row[1]
    )
    assert "<b>gateway</b>: this version has no HTTP server" in text


def test_the_same_results_make_the_same_page(results: Path) -> None:
    assert page(read_all(results)) == page(read_all(results))


def test_the_page_says_machine_command_and_commit(results: Path) -> None:
    text = page(read_all(results))
    assert "2 cores of A Processor" in text
    assert text.count("python -m benchmarks.sample") == len(SAMPLES)
    assert "012345678" in text


def test_a_page_of_some_benchmarks_and_of_closed_doors_is_made(tmp_path: Path) -> None:
    closed = load()
    closed["doors"].pop("triton")
    write(tmp_path, closed)
    text = page(read_all(tmp_path))
    assert "this version has no HTTP server" in text
    assert "<svg" not in text


def test_the_command_writes_the_page_and_the_readmes_plot(results: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out/page.html", tmp_path / "plot.svg"
    assert main(["--results", str(results), "--out", str(out), "--plot", str(plot)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert plot.read_text().startswith("<svg")


def test_the_table_of_times_shows_noise_and_reasons(tmp_path: Path) -> None:
    write(tmp_path, latency())
    table = "\n".join(latency_table(read_all(tmp_path)["latency"]))
    assert "| diffusers-eager / castmate | 2.00 (1.99..2.01) |  | 2.40 |" in table
    assert "| tensorrt | no TensorRT plans" in table


def test_the_table_of_step_caching_has_the_controls_and_no_speed_for_them(tmp_path: Path) -> None:
    write(tmp_path, quality())
    table = "\n".join(step_caching(read_all(tmp_path)["quality"]))
    assert "| fast | 17.5 | 1.60 | 0.950 | -0.050 (-0.060..-0.040) |" in table
    assert "| control: off, other kernels | 28.0 |  | 0.999 |" in table


def test_a_place_for_a_table_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="latency has no end"):
        filled("<!-- latency -->\n")
    assert filled("no place") == "no place"
