"""Fills the tables of the documents from the committed results: `python -m benchmarks.readme`.

A table stands between `<!-- name -->` and `<!-- /name -->`, in the README or in a page of `docs/`;
a test checks that each one is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

SUMMARY = {
    "castmate": "Castmate",
    "castmate-balanced": "Castmate, `--cache balanced`",
    "torch-compile": "`torch.compile`, the same weights",
    "diffusers-eager": "diffusers, the same weights",
}
STEPS_ONLY = ", encoders kept"
FP8_VARIANTS = {
    "bf16 (control)": "bf16, the control",
    f"fp8{STEPS_ONLY}": "FP8 linear layers",
    "fp8": "the same, and encoders",
    f"fp8-attention{STEPS_ONLY}": "FP8 linear layers and attention",
    "fp8-attention": "the same, and encoders: the default",
}
LEDGERS = {
    "sqlite, process": "SQLite, `process`",
    "sqlite, power": "SQLite, `power`",
    "postgresql": "PostgreSQL",
}
CACHES = {
    "castmate": "off",
    "balanced": "balanced",
    "fast": "fast",
    "other kernels (control)": "control: off, other kernels",
    "another seed (control)": "control: off, another seed",
}


def toon_quality(report: dict[str, Any]) -> Iterator[str]:
    """What the judge recognises in the demo model's pictures."""
    shares: dict[str, dict[str, float]] = report["shares"]
    names = list(next(iter(shares.values())))
    yield _row(
        f"{report['pictures_a_row']} held-out characters",
        *(name.replace("_", " ") for name in names),
    )
    yield _rule(len(names) + 1)
    for row, scores in shares.items():
        yield _row(row, *(f"{scores[name]:.2f}" for name in names))
    yield ""
    yield _row("what was looked for", "share of pictures")
    yield _rule(2)
    for name, share in report["shares_by_words"].items():
        yield _row(name, f"{share:.2f}")


def toon_framing(report: dict[str, Any]) -> Iterator[str]:
    """What cutting a character out of its reference is worth."""
    yield _row(
        f"reference of {report['pictures_a_row']} held-out characters each",
        "identity, whole picture",
        "identity, cut out",
        "cut out by",
    )
    yield _rule(4)
    for name, row in report["rows"].items():
        found = ", ".join(
            f"{framing} ({count})" for framing, count in sorted(row["framings"].items())
        )
        whole, cut = (row[how]["identity"] for how in ("whole picture", "cut out"))
        yield _row(name, f"{whole:.2f}", f"{cut:.2f}", found)


def identity(report: dict[str, Any]) -> Iterator[str]:
    """What the score of the demo model tells apart."""
    yield _row(
        f"{report['pictures']} held-out characters, {report['size']}, {report['steps']} steps", ""
    )
    yield _rule(2)
    for name, found in report["separation"].items():
        yield _row(f"{name}: AUC, same character against others", f"{found['auc']:.3f}")
    for scale, score in report["by_subject_scale"].items():
        yield _row(f"mean identity at `subject_scale` {scale}", _with_interval(score))
    best = report["best_of"]
    yield _row(
        f"mean identity of one, {best['characters']} characters", _with_interval(best["one"])
    )
    yield _row(f"mean identity of the best of {best['candidates']}", _with_interval(best["best"]))
    yield _row("the same less that of one, paired", _with_interval(best["paired_difference"]))
    for name, title in (("one", "one"), ("best", f"the best of {best['candidates']}")):
        yield _row(
            f"share of attributes that the judge recognises in {title}",
            f"{best[f'attributes_{name}']:.3f}",
        )


def references(report: dict[str, Any]) -> Iterator[str]:
    """What several pictures of a character are worth, by how they are combined."""
    yield _row(
        f"{report['characters']} held-out characters, {report['size']}, {report['steps']} steps",
        "identity",
        "attributes that the judge recognises",
        "identity less that of each picture alone, paired",
    )
    yield _rule(4)
    for view, alone in report["views"].items():
        scores = (_with_interval(alone[name]) for name in ("identity", "attributes"))
        yield _row(f"{view} alone", *scores, "")
    for name, found in report["sets"].items():
        for way, scores in found["ways"].items():
            less = (f"{view} {_change(one['identity'])}" for view, one in scores["less"].items())
            yield _row(
                f"{name}: {way}",
                *(_with_interval(scores[name]) for name in ("identity", "attributes")),
                "<br>".join(less),
            )


def strangers(report: dict[str, Any]) -> Iterator[str]:
    """How often the warning that pictures are not alike is right."""
    yield _row(f"{report['characters']} held-out characters", "warned: all are of one", "found")
    yield _rule(3)
    for name, shares in report["sets"].items():
        yield _row(
            name,
            *(_with_interval(shares[one]) for one in ("all of one character", "one of another")),
        )


def _with_interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f}..{found['high']:.3f})"


def latency_summary(report: dict[str, Any]) -> Iterator[str]:
    """The contenders that most readers ask about."""
    request, machine = report["request"], report["environment"]
    yield _row(
        f"{request['size']}, {request['num_inference_steps']} steps, "
        f"{machine['cores']} cores of {machine['cpu']}",
        "p50 ms",
        "peak MiB",
    )
    yield _rule(3)
    for name, title in SUMMARY.items():
        row = report["contenders"][name]
        yield _row(title, f"{row['p50_ms']:.0f}", f"{row['peak_mib']:.0f}")


def latency(report: dict[str, Any]) -> Iterator[str]:
    """One picture by every contender, or why there is no figure."""
    request, machine = report["request"], report["environment"]
    yield _row(
        f"toon, {request['size']}, {request['num_inference_steps']} steps, "
        f"{machine['cores']} cores of {machine['cpu']}",
        "p50 ms",
        "min..max ms",
        "peak MiB",
    )
    yield _rule(4)
    for name, row in report["contenders"].items():
        if "reason" in row:
            yield _row(name, row["reason"], "", "")
            continue
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        yield _row(name, f"{row['p50_ms']:.0f}", f"{row['min_ms']:.0f}..{row['max_ms']:.0f}", peak)
    ratio = report["ratios_to_castmate"]["diffusers-eager"]
    yield _row(
        "diffusers-eager / castmate",
        f"{ratio['value']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})",
        "",
        f"{report['ratio_peak_memory']:.2f}",
    )


def step_caching(report: dict[str, Any]) -> Iterator[str]:
    """What skipping steps gains, and what it costs."""
    yield _row(
        f"`cache`, {report['pictures']} pictures",
        "steps computed",
        "times faster",
        "SSIM to torch fp32",
        "DINO identity, change",
        "judged look, change",
    )
    yield _rule(6)
    for name, title in CACHES.items():
        if (row := report["rows"].get(name)) is None:
            continue
        yield _row(
            title,
            f"{row['computed_steps']['value']:.1f}",
            "" if row["control"] else f"{row['speedup']['value']:.2f}",
            f"{row['ssim']['value']:.3f}",
            *(
                _change(row[key]) if key in row else ""
                for key in ("dino_change", "judge_look_change")
            ),
        )


def few_steps(report: dict[str, Any]) -> Iterator[str]:
    """What fewer steps cost, with and without a LoRA for few steps, alone and combined."""
    yield _row(
        f"{report['pictures']} held-out characters, {report['request']['size']}",
        "steps computed",
        "times faster",
        "SSIM to the exact picture",
        "identity, change",
        "look, change",
        "pose and scene, change",
    )
    yield _rule(7)
    for name, row in report["rows"].items():
        if row["class"] == "style" or row["computed_steps"] is None:
            continue
        yield _row(
            "every step" if name == "castmate" else name.replace("_", chr(92) + "_"),
            f"{row['computed_steps']['value']:.1f}",
            "" if row["control"] else f"{row['speedup']['value']:.2f}",
            f"{row['ssim']['value']:.3f}",
            *(_change(row[f"{key}_change"]) for key in ("dino", "judge_look", "judge_prompt")),
        )


def fp8(report: dict[str, Any]) -> Iterator[str]:
    """What FP8 costs in quality."""
    yield _row(
        f"{report['pictures']} pictures of {report['side_px']} px, {report['steps']} steps",
        "latents, relative L2 (median)",
        "PSNR of the picture, dB (median)",
        "of the worst",
        "identity, change of the cosine",
    )
    yield _rule(5)
    for name, title in FP8_VARIANTS.items():
        row = report["variants"][name]
        yield _row(
            title,
            f"{row['latents_relative_l2']['median']:.3f}",
            f"{row['psnr_db']['median']:.1f}",
            f"{row['psnr_db']['min']:.1f}",
            f"{row['dino_change']['value'] + 0.0:+.4f}",
        )


def schemes(report: dict[str, Any]) -> Iterator[str]:
    """What each quantization scheme takes, where it is worth it, and what it costs."""
    yield _row(
        f"`--quantization`; {report['pictures']} pictures of {report['side_px']} px, "
        f"{report['steps']} steps",
        "transformer, GB",
        "all graphs, GB",
        "GPUs that gain",
        "PSNR, dB",
        "SSIM",
        "identity, change",
        "look",
        "pose and scene",
    )
    yield _rule(9)
    for name, row in report["variants"].items():
        if name == "fp32" or name.endswith(STEPS_ONLY):
            continue
        counted = report["schemes"].get("none" if name.startswith("bf16") else name)
        cells: tuple[str, ...] = ("", "", "")
        if counted is not None:
            sizes = (counted[key] / 1e9 for key in ("transformer_bytes", "all_bytes"))
            cells = (*(f"{size:.2f}" for size in sizes), ", ".join(counted["gains"]))
        yield _row(
            name,
            *cells,
            f"{row['psnr_db']['value']:.1f}",
            f"{row['ssim']['value']:.3f}",
            f"{row['dino_change']['value'] + 0.0:+.3f}",
            f"{row['judge_look']['value']:.2f}",
            f"{row['judge_prompt']['value']:.2f}",
        )


def ledger(report: dict[str, Any]) -> Iterator[str]:
    """What the ledger adds to a picture."""
    yield _row(
        "ledger",
        "acknowledged, ms p50 / p99",
        "started",
        "stored",
        "submits a second",
        f"takeover from a dead process, lease {report['lease_s']:.0f} s",
    )
    yield _rule(6)
    for name, title in LEDGERS.items():
        row = report["databases"][name]
        times = (row[key] for key in ("acknowledged_ms", "started_ms", "finished_ms"))
        yield _row(
            title,
            *(f"{time['p50']:.1f} / {time['p99']:.1f}" for time in times),
            f"{row['submits_per_s']}",
            f"{row['recovery_s']:.1f} s",
        )


def studio(report: dict[str, Any]) -> Iterator[str]:
    """What the page for people weighs, and how soon it is seen."""
    machine, size, requests = report["environment"], report["bytes"], report["requests"]
    yield _row(f"the studio, first visit, {machine['cores']} cores of {machine['cpu']}", "")
    yield _rule(2)
    yield _row("bytes, and compressed by gzip", f"{size['raw']:,}, {size['gzip']:,}")
    yield _row("requests for the page, and for its data", f"{requests['page']}, {requests['api']}")
    for name, title in (("first_paint_ms", "first paint"), ("usable_ms", "form usable")):
        time = report["times"][name]
        yield _row(
            f"{title}, ms, median of {report['loads']} (min..max)",
            f"{time['p50']:.0f} ({time['min']:.0f}..{time['max']:.0f})",
        )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('*', chr(92) + '*') for cell in cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _change(value: dict[str, float]) -> str:
    shown = {name: round(number, 3) + 0.0 for name, number in value.items()}  # no -0.000
    return "{value:+.3f} ({low:+.3f}..{high:+.3f})".format(**shown)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    "toon-quality": ("toon-quality.json", toon_quality),
    "toon-framing": ("toon-framing.json", toon_framing),
    "identity": ("identity.json", identity),
    "references": ("references.json", references),
    "strangers": ("strangers.json", strangers),
    "latency-summary": ("latency-cpu.json", latency_summary),
    "latency": ("latency-cpu.json", latency),
    "step-caching": ("quality-cpu.json", step_caching),
    "few-steps": ("quality-cpu.json", few_steps),
    "fp8": ("schemes-toon.json", fp8),
    "schemes": ("schemes-toon.json", schemes),
    "ledger": ("ledger.json", ledger),
    "studio": ("studio.json", studio),
}


def filled(text: str) -> str:
    """A document with every table that it has a place for, as the committed results give it.

    Raises:
        ValueError: A place has no end.
    """
    for name, (file, table) in TABLES.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        if not start:
            continue
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise ValueError(f"the place for {name} has no end: add <!-- /{name} -->")
        shown = "\n".join(table(json.loads((RESULTS / file).read_text())))
        text = f"{before}{start}{shown}\n{end}{after}"
    return text


def main() -> None:
    """Command line."""
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))


if __name__ == "__main__":
    main()
