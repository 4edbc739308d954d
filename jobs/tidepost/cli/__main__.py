"""`python -m tidepost.cli`, which is `tidepost`."""

from __future__ import annotations

import sys

from tidepost.cli import main

sys.exit(main())
