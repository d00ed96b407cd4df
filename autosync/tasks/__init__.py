"""The receiving side of the queue: the tasks of Celery, and all that a worker does for a batch of keys."""
