"""`python -m edgemask` is `edgemask`."""

import sys

from edgemask.cli import main

if __name__ == "__main__":
    sys.exit(main())
