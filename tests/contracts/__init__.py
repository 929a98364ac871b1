"""One suite per port, run on every adapter that serves it."""
