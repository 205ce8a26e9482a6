"""`python -m pocketxl.engine` is the command `pocketxl`, for where scripts are not on the path."""

import sys

from .commands.main import main

if __name__ == "__main__":
    sys.exit(main())
