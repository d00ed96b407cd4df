"""`make bench`: autosync and its peers on the same work, in turn; `docs/performance.md` is what it writes."""
