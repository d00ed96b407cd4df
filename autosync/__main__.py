"""`python -m autosync` is the command `autosync`."""

from .cli import main

if __name__ == "__main__":
    main()
