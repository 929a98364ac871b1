"""The tests: a package on the path (pyproject's `pythonpath`), so that `from tests.support import …` works."""
