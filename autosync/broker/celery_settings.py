"""The Celery settings that celeryconfig.py may change, and those that it may not. Constants only; docs/settings.md explains each."""

from __future__ import annotations

from typing import Any

#: The names of the tasks in messages.
UPLOAD, DELETE = TASKS = ("autosync.upload", "autosync.delete")
#: The remote control command that a watcher sends to the workers when it registers a mirror.
SERVE = "autosync_serve"

#: What a deployment may change in its celeryconfig.py.
DEFAULTS: dict[str, Any] = {
    "broker_url": "redis://127.0.0.1:6379/0",
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_pool": "threads",
    # Batches at a time in one process; each has up to --threads transfers in flight.
    "worker_concurrency": 8,
    "worker_hijack_root_logger": False,
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    # Which source roots this box may read: a list of paths, or {path on the file host: where it is mounted here}.
    "autosync_sources": [],
    # The queues this box serves when `celery worker` is not given -Q; with none, those of every mirror, also of those that come later.
    "autosync_queues": [],
    # Values of secret options of actors, by option name.
    "autosync_secrets": {},
    # "text" or "json" for log lines in autosync's own format; None leaves logging to Celery.
    "autosync_log_format": None,
    # With that: -1 warnings, 0 notices, 1 each transfer, 2 everything.
    "autosync_verbosity": 1,
}

#: Settings that correctness needs. They are set in the app itself, so no file can change them.
NEEDED: dict[str, Any] = {
    "broker_transport_options": {
        "global_keyprefix": "autosync:",
        # `requeue_orphans` replaces messages that are lost with their worker. kombu's record of unacknowledged messages costs three round
        # trips for each message, loses some all the same, and runs tasks twice when a connection breaks.
        "ack_emulation": False,
        "priority_steps": [0, 5, 9],
        "sep": ":",
        "queue_order_strategy": "round_robin",
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
    },
    "broker_channel_error_retry": True,
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_timeout": False,
    "task_create_missing_queues": False,
    "worker_prefetch_multiplier": 1,
}
