"""How the demo bundle `toon` is drawn, trained and judged: `python -m demo_model.<step>`."""
