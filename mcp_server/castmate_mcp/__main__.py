"""`python -m castmate_mcp` is `castmate mcp`."""

import typer

from castmate_mcp.cli import command

if __name__ == "__main__":
    typer.run(command)
