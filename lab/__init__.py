"""What tests, demo and soak need besides autosync: real servers on loopback, a proxy with faults, random operations. Not in the package."""
