"""`python -m blockyard` is the command `blockyard`."""

import sys

from blockyard.cli.main import main

sys.exit(main())
