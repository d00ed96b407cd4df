"""`autosync-ctl`: see how mirrors stand, and steer them. It speaks to the broker, and is no part of what keeps a mirror."""
