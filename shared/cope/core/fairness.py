"""Whose line comes next: start-time fair queueing by turns that are given once, when a batch begins.

A queue is claimed in the order of `turn`. A new batch starts at the turn the queue has come to, and its lines follow at
a distance of `stride`: the longer the stride, the smaller the batch's share. So a batch of a million lines can't starve
one of ten, the k-th batch of a project gets a k-th of the share of its first, and a short window goes first.
"""

from datetime import timedelta

LONGEST = timedelta(days=7)


def stride(window: timedelta | None, open_batches: int) -> int:
    """Turns between two lines of a batch, ≥ 1: its completion window in hours, times the batches that its project has
    in progress with it (`open_batches` ≥ 1, itself included). Without a window, as for the longest one."""
    hours = max(1, round((LONGEST if window is None else window) / timedelta(hours=1)))
    return hours * max(1, open_batches)
