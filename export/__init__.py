"""Build steps from torch weights to a bundle. Not packaged: `python -m export.<step>`."""
