"""What the desktop bundle starts: the installed server over stdio."""

from castmate_mcp.cli import command

if __name__ == "__main__":
    import typer

    typer.run(command)
