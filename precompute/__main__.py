"""``python -m precompute`` is the same as ``iconoscope``."""

from __future__ import annotations

import sys

from precompute.cli import main

if __name__ == "__main__":
    sys.exit(main())
