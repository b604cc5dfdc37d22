"""`python -m dari.daemon`: darid."""

import sys

from dari.daemon import main

sys.exit(main())
