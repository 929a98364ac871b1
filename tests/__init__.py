"""The tests. A package, so that `from tests.support import …` works (pyproject puts the repository root on the path)."""
