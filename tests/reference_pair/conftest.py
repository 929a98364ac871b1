"""The scripts of the reference pair are no package: tests import them by name from their folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "ops" / "reference_pair"))
