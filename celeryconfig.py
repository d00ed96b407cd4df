"""What an operator sets for an upload box. `celery -A autosync worker` reads this file when it is started in this directory.

Every lower-case name here is a setting; what is not here keeps the value from autosync/broker/celery_settings.py. docs/settings.md explains
them all.
"""

# The Redis or Valkey that all hosts of the fleet use. The environment variable CELERY_BROKER_URL, where it is set, wins over this line.
broker_url = "redis://127.0.0.1:6379/0"

# The queues that this box serves when it is started without -Q; with none, those of every mirror.
autosync_queues = []

# Batches that this process works on at a time; each has up to --threads transfers in flight.
worker_concurrency = 8

# What this box may read. It refuses everything else, and the keys show up as failed. A list of paths, where the share is mounted at the
# same place as on the file host:
#     autosync_sources = ["/srv/photos", "/srv/music"]
# or a dict from the path on the file host to the path here:
#     autosync_sources = {"/srv/photos": "/mnt/photos"}
autosync_sources = []
