"""What the local stack says when it can't go on: one clear line, exit code 2."""


class CannotStart(Exception):
    """The message is one line: what is missing or in the way, and how to mend it."""
