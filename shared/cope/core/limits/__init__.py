"""The arithmetic of provider limits: pure, with the time passed in (seconds since the epoch, as a float)."""
