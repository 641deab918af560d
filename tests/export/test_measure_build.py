"""What a build takes, by blocks: refused before it is tried, or really built in full width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.measure_build import main

pytestmark = pytest.mark.slow


def test_what_takes_more_memory_than_may_be_taken_is_not_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--quantization", "nvfp4", "--blocks", "19", "--host-memory", "8"]
    assert main(arguments) == 0
    row = json.loads(capsys.readouterr().out)["by_double_blocks"]["19"]
    # 3.4 times 6.0 GB of weights, and 1 GiB for the builder; it took 18.8 GiB.
    assert row == {"reason": "takes about 20.0 GiB of host memory"}


@pytest.mark.full_size
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("scheme", "target", "datatype"),
    [("nvfp4", "12.0", "FP4E2M1"), ("int8", "8.6", "Int8"), ("int4", "8.6", "Int4")],
)
def test_a_step_of_full_width_is_built_with_the_kernels_that_were_asked_for(
    scheme: str, target: str, datatype: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx_cu13 is not installed")
    out = tmp_path / "built.json"
    arguments = ["--quantization", scheme, "--target", target, "--host-memory", "8"]
    assert main([*arguments, "--scratch", str(tmp_path), "--out", str(out)]) == 0
    built = json.loads(out.read_bytes())["by_double_blocks"]["1"][target]
    assert built["layers"]["gemms_reading"][datatype] > 0
    assert built["peak_host_bytes"] < 8 * 2**30
