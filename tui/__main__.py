"""`python -m tui` is the command `mlc-wizard`."""

import sys

from tui.cli import main

sys.exit(main())
