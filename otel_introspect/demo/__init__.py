"""A small shop that is slow in as many ways as there are, and a driver that shows how each explains itself."""
