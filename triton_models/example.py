"""A picture through Triton: `python triton_models/example.py HOST:PORT REFERENCE PROMPT OUTPUT`."""

import asyncio
import sys
from pathlib import Path

from castmate.clients.triton.client import TritonClient
from castmate.images import Reference
from castmate.schema import GenerateRequest


async def main(url: str, reference: str, prompt: str, output: str) -> None:
    """Draw one picture and show every step."""
    client = TritonClient((url,))
    try:
        result = await client.generate(
            GenerateRequest(prompt=prompt, image=reference, size="512*512"),
            Reference.from_bytes(Path(reference).read_bytes(), reference),
            lambda progress: print(f"step {progress.step} of {progress.total}"),
        )
    finally:
        await client.aclose()
    (image,) = result.images
    Path(output).write_bytes(image.data)
    print(
        f"{output}: seed {image.seed}, drawn by {result.model} in {result.timings_ms['total']} ms"
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
