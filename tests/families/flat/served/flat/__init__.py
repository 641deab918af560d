"""A family of the smallest kind: flat pictures in the reference's colour, in four steps at most."""
