"""Lets a bundle use the files that another has as well: `python -m export.share FOLDER BASE`.

A few-step version of a model changes its transformer only. Encoders and decoder, the larger part
of the files, then need to be on the disk once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from castmate.engines.bundle import Bundle
from castmate.engines.manifest import MANIFEST
from castmate.errors import CastmateError
from castmate.files import write_atomically
from export.errors import ExportError


def share(bundle: Bundle, base: Bundle) -> int:
    """Delete the files of a bundle that its base has as well, and name the base in its manifest.

    Args:
        bundle: Loses files; the base must stay beside it from now on.
        base: Keeps them.

    Returns:
        Bytes that were freed.

    Raises:
        ExportError: The two do not lie side by side, the base has a base itself, or they have no
            file in common.
        BundleCorrupt: A file of the base that would be used is not what its manifest says.
    """
    if bundle.path.parent != base.path.parent or bundle.path == base.path:
        raise ExportError(
            f"{base.path} is not a folder beside {bundle.path}: bundles that share files are moved "
            "together. Put them into one folder."
        )
    if base.manifest.base is not None:
        raise ExportError(f"{base.path} takes files from {base.manifest.base!r}; name that one.")
    theirs = {(spec.file, spec.sha256) for spec in base.manifest.files}
    common = [spec for spec in bundle.manifest.files if (spec.file, spec.sha256) in theirs]
    if not common:
        raise ExportError(f"{bundle.path} and {base.path} have no file in common.")
    for spec in common:
        base.file(spec)
    # The manifest first: while a file is in both folders, either is right.
    named = bundle.manifest.model_copy(update={"base": base.path.name})
    write_atomically(bundle.path / MANIFEST, f"{named.model_dump_json(indent=1)}\n".encode())
    for spec in common:
        (bundle.path / spec.file).unlink(missing_ok=True)
    return sum(spec.num_bytes for spec in common)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    line = argparse.ArgumentParser(prog="python -m export.share", description=__doc__)
    line.add_argument("bundle", type=Path, metavar="FOLDER", help="the bundle that loses files")
    line.add_argument("base", type=Path, metavar="BASE", help="the one beside it that keeps them")
    given = line.parse_args(arguments)
    try:
        freed = share(Bundle.open(given.bundle), Bundle.open(given.base))
    except (ExportError, CastmateError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.bundle} uses {freed / 1e6:,.1f} MB of {given.base}; keep them side by side.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
