"""`python -m autosync` is the command `autosync`."""

import os
import sys

if __name__ == "__main__":
    if sys.path[:1] == [os.getcwd()]:
        del sys.path[0]  # Python has put it first, and it may be the directory that is to be mirrored
    from .cli import main

    main()
