"""`python -m autosync` is the command `autosync`."""

if __name__ == "__main__":
    from .process import installation_path

    installation_path.search_only()  # Python has put the current directory first, and it may be the one that is to be mirrored
    from .cli import main

    main()
