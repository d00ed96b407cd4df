"""The mark of a directory that holds the state of an autosync: a file of this name. Every autosync leaves such a directory out."""

NAME = ".autosync-state"
#: The content of the file, for people.
TEXT = "This directory holds the state of an autosync (--state-dir). No autosync mirrors it as long as this file is here.\n"
#: The reason for which such a directory is skipped.
REASON = "holds the state of an autosync"
