"""`autosync-ctl`: shows the state of mirrors, and controls them. No mirror depends on it.

It uses the ledger, and has no connection to watchers or workers. `accept` also reads and writes files of the state directory; `why` also
checks this host's disk, and `doctor` and `verify` check the target as well.
"""
