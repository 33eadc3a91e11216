"""`python -m lictor`: the same as the `lictor` command."""

import sys

from lictor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
