"""Times the steps of two bundles in turns: `python -m benchmarks.side_by_side BEFORE AFTER`.

For a change to the graphs: one process runs both on one thread and counts only its processor time,
so that other work on the machine hardly affects the ratio. A bundle may have any format, since its
graphs get inputs made up from their declared shapes and types.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from castmate.engines.manifest import MANIFEST
from castmate.families.instantcharacter.graphs import PARTS, TABLE, WHOLE

STEPS = 28
WARM_UPS = 3
Run = tuple[onnxruntime.InferenceSession, Mapping[str, NDArray[np.generic]]]


def step_graphs(folder: Path, side: int, rank: int = 0) -> list[Run]:
    """The graphs of one step of a bundle, in their order, each with inputs for a square picture.

    Args:
        folder: Of the bundle.
        side: Pixels.
        rank: Of a style, where the graphs take any; 0 is none.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    cells = side // manifest["constants"]["pixels_per_token"]
    length = manifest["tokenizers"]["tokenizer_2"]["max_length"]
    one = {"B": 1, "G": 1, "L": length, "T": STEPS, "h": cells, "w": cells}
    dims = TABLE.dims(one | {"r": rank})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    random = np.random.default_rng(0)
    found: list[Run] = []
    for name in (WHOLE, *PARTS):
        if (graph := manifest["graphs"].get(name)) is None:
            continue
        inputs = {}
        for key, spec in graph["inputs"].items():
            shape = [n if isinstance(n, int) else dims[n] for n in spec["shape"]]
            values = random.uniform(0, 1, shape) if "float" in spec["dtype"] else np.zeros(shape)
            inputs[key] = values.astype(spec["dtype"])
        path = folder / graph["files"][0]["file"]
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found.append((session, inputs))
    return found


def measure(
    before: Path, after: Path, side: int, rounds: int, *, rank: int = 0
) -> dict[str, float]:
    """Time both.

    Args:
        before: Folder of a bundle.
        after: Folder of another one.
        side: Pixels of the square picture.
        rounds: Measured steps of each.
        rank: Of a style that the second one draws in; 0 is none.

    Returns:
        Processor milliseconds of a step of each, and the median, lower and upper quartile of the
        ratios of neighbouring steps.
    """
    bundles = [step_graphs(before, side), step_graphs(after, side, rank)]
    times: list[list[float]] = [[], []]
    for number in range(WARM_UPS + rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            for session, inputs in bundles[which]:
                session.run(None, inputs)
            times[which].append(1000 * (time.process_time() - start))
    first, second = (np.array(some[WARM_UPS:]) for some in times)
    low, middle, high = np.percentile(second / first, [25, 50, 75])
    return {
        "before_ms": float(np.median(first)),
        "after_ms": float(np.median(second)),
        "ratio": float(middle),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("before", type=Path, help="folder of a bundle")
    parser.add_argument("after", type=Path, help="folder of a bundle")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--rounds", type=int, default=300, help="measured steps of each")
    parser.add_argument("--rank", type=int, default=0, help="of a style of the second bundle")
    given = parser.parse_args()
    found = measure(given.before, given.after, given.side, given.rounds, rank=given.rank)
    print(
        "step {before_ms:.3f} ms -> {after_ms:.3f} ms of one core; ratio {ratio:.3f} "
        "(quartiles {ratio_low:.3f}..{ratio_high:.3f})".format(**found)
    )


if __name__ == "__main__":
    main()
