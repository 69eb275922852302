"""Where finished spans can go besides a backend: to a reader at a terminal."""
