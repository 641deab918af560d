"""Results as the benchmarks write them, with invented figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export.environment import SEAL, seal

ENVIRONMENT: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "command": "python -m benchmarks.sample",
    "commit": "0123456789abcdef",
    "modified": False,
    "cpu": "A Processor",
    "cores": 2,
    "memory_gib": 8.0,
    "load_average": 0.1,
    "clock": {"governor": None, "max_khz": None},
    "gpu": None,
    "python": "3.11.0",
    "packages": {"castmate": "0.1.0"},
}
REQUEST = {"size": "512*512", "num_inference_steps": 28}


def times(p50: float) -> dict[str, Any]:
    tail = {f"p{p}_ms": p50 * (1 + p / 1000) for p in (90, 95, 99)}
    return {"p50_ms": p50, **tail, "min_ms": p50 / 2, "max_ms": p50 * 2, "runs": 12}


def value(middle: float) -> dict[str, float]:
    return {"value": middle, "low": middle - 0.01, "high": middle + 0.01, "p5": middle - 0.1}


def contender(kind: str, p50: float, steps: float = 28) -> dict[str, Any]:
    phases = ("new character", "new prompt", "again")
    return {
        "class": kind,
        **times(p50),
        "phases": {phase: times(p50 + i) for i, phase in enumerate(phases)},
        "stages_p50_ms": {"text": 1.0, "denoise": p50 / 2, "decode": p50 / 3},
        "step": times(p50 / 60),
        "computed_steps": steps,
        "load_ms": 200.0,
        "peak_mib": 300.0,
        "heavy_modules_loaded": [],
        "first_request_ms": p50 * 2,
    }


def latency() -> dict[str, Any]:
    return {
        "benchmark": "latency",
        "request": REQUEST,
        "network": "toon",
        "contenders": {
            "castmate": contender("exact", 200),
            "diffusers-eager": contender("exact", 400),
            "castmate-fast": contender("cached", 150, 10),
            "tensorrt": {"class": "exact", "reason": "no TensorRT plans <here>"},
        },
        "ratios_to_castmate": {"diffusers-eager": value(2.0), "castmate-fast": value(0.75)},
        "ratio_peak_memory": 2.4,
        "start": {"import castmate": times(8)},
    }


def quality() -> dict[str, Any]:
    def row(kind: str, loss: float, speedup: float | None, threshold: float = 0) -> dict[str, Any]:
        names = ("dino", "siglip", "judge_look", "judge_prompt")
        return {
            "class": kind,
            "control": False,
            "threshold": threshold,
            "psnr_db": value(40 - 100 * loss),
            "ssim": value(1 - loss),
            **{name: value(0.8 - loss) for name in names},
            **{f"{name}_change": value(-loss) for name in names},
            "computed_steps": speedup and value(28 / speedup),
            "speedup": speedup and value(speedup),
            "speedup_denoise": speedup and value(speedup),
        }

    return {
        "benchmark": "quality",
        "request": REQUEST,
        "network": "toon",
        "pictures": 48,
        "rows": {
            "torch fp32": row("exact", 0, None),
            "fp8": row("near-lossless", 0.02, None),
            "castmate": row("exact", 0, 1),
            "other kernels (control)": row("exact", 0.001, 1) | {"control": True},
            "balanced": row("cached", 0.02, 1.3, 0.08),
            "fast": row("cached", 0.05, 1.6, 0.15),
            "threshold 0.3": row("cached", 0.1, 1.9, 0.3),
        },
        "lpips": "not measured",
        "judge": "trained on renders",
    }


def load() -> dict[str, Any]:
    run = {"offered": 10, "done": 10, "refused": {}, "pictures_per_s": 2.0, **times(300)}
    slo = {"deadline_ms": 1200.0, "goodput": 0.9, "offered_per_s": 2.0}
    memory = dict.fromkeys(("start_mib", "most_mib", "first_third_mib", "last_third_mib"), 300.0)
    return {
        "benchmark": "load",
        "request": REQUEST,
        "seconds": 10,
        "doors": {
            "triton": {
                "closed": {"1": run, "2": run},
                "open": {"0.5": run | slo, "1.2": run | slo},
                "memory": memory | {"samples_mib": [300.0, 301.0]},
            },
            "gateway": {"reason": "this version has no HTTP server"},
        },
    }


def roofline() -> dict[str, Any]:
    return {
        "benchmark": "roofline",
        "request": REQUEST,
        "own_peaks": {"tflops": 0.1, "fp8_tflops": 0.1, "tb_per_s": 0.01},
        "graphs": {"transformer": {**times(5), "floor_ms": 2.5, "share_of_floor": 0.5}},
        "full_size": {
            "size": "1024*1024",
            "floors_ms": {"H200 SXM": {"transformer": {"bf16": 81.0, "fp8": 50.0}}},
        },
    }


SAMPLES = (latency, quality, load, roofline)


def write(folder: Path, result: dict[str, Any], **environment: Any) -> Path:
    """Write a result as a benchmark does, on a machine with these differences."""
    sealed = result | {"environment": ENVIRONMENT | environment}
    path = folder / f"{result['benchmark']}.json"
    path.write_text(json.dumps(sealed | {SEAL: seal(sealed)}))
    return path
