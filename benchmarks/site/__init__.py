"""The least of a Django site: what is left is what surrounds a view."""
