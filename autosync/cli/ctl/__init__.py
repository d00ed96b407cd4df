"""`autosync-ctl`: shows the state of mirrors, and controls them. It speaks to the broker only; no mirror depends on it."""
