"""What gunicorn is told besides its command line; read by gunicorn from this file."""

from __future__ import annotations

import os
import signal
import threading

# Newer releases open a socket in the user's runtime directory, by which nobody needs to control a demo; older ones
# overlook a setting that they don't know.
control_socket_disable = True


def when_ready(_server: object) -> None:
    """Stop when the demo is gone, even if it was killed: its end of our standard input is closed then."""
    threading.Thread(target=_stop_at_end_of_input, name="demo-is-there", daemon=True).start()


def _stop_at_end_of_input() -> None:
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
