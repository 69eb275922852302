"""A small web shop: a Django project like many, with the usual ways of being slow.

The demo copies it to a directory of its own and runs it from there, as the package ``shop``: code inside
``otel_introspect`` or ``site-packages`` would count as a library's, not as the application's.
"""
