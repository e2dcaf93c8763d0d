"""Entry point of a worker process."""

import sys

from blockyard.worker.process import main

sys.exit(main())
