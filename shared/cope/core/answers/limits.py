"""Bounds on what is read, checked before anything is evaluated. All of them are generous for real answers."""

MAX_SOLUTION_CHARS = 200_000
"""Extraction looks at the last so many characters of a solution; an answer stands at the end."""
MAX_MATH_CHARS = 2_000
"""A longer mathematical answer can't be read (the longest gold answer of MATH-500 has 70 characters)."""
MAX_EXACT_CHARS = 100_000
"""The same for kind `exact`, whose answers may be whole JSON documents."""
MAX_DEPTH = 40
"""Brackets within brackets, and levels of the parser."""
MAX_TREE_DEPTH = 150
"""Levels of an expression tree: a sum of so many terms."""
MAX_MEMBERS = 200
"""Elements of one list, set, tuple or matrix."""
QUICK_BITS = 4_096
"""Largest numerator or denominator, in bits, that is computed in the caller's process: well under a millisecond."""
HELPER_BITS = 200_000
"""The same in a helper (about 60,000 digits): beyond it the answer can't be read, as with (10^6)!."""
MAX_KEY_CHARS = 256
"""Longer keys are shortened to a head and a SHA-256."""
