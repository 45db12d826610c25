"""The example's modules are scripts beside each other, as a user runs them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/examples/splicing"))
