"""The settings of an upload box. `celery -A autosync worker` reads this file when it is started in this directory.

Every lower-case name here is a setting. Others keep their values from autosync/broker/celery_settings.py. docs/settings.md explains all.
"""

# The Redis or Valkey that all hosts of the fleet use. The environment variable CELERY_BROKER_URL takes precedence over this line.
broker_url = "redis://127.0.0.1:6379/0"

# The queues that this box serves if it is started without -Q; an empty list stands for the queues of all mirrors.
autosync_queues = []

# Batches that this process works on at a time; each has up to --threads transfers in flight.
worker_concurrency = 8

# The directories that this box may read. It refuses all others, and their keys go to the failed list. A list of paths, if the share is
# mounted as on the file host:
#     autosync_sources = ["/srv/photos", "/srv/music"]
# or a dict from the path on the file host to the path here:
#     autosync_sources = {"/srv/photos": "/mnt/photos"}
autosync_sources = []
