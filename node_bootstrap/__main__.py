"""`python -m node_bootstrap`."""

import sys

from node_bootstrap.cli import main

sys.exit(main())
