"""`python -m bench`, which is what `make bench` runs."""

from bench.run import main

raise SystemExit(main())
