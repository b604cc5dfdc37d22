"""`python -m dari.daemon`: darid."""

import sys

from dari.daemon.main import main

sys.exit(main())
