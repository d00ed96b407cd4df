"""What one writes first: boto3 and 32 threads. `python plain_boto3.py DIRECTORY BUCKET URL`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config

THREADS = 32


def main() -> None:
    """Put each file of a directory into a bucket."""
    root, bucket, url = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=THREADS))

    def put(path: Path) -> None:
        client.put_object(Bucket=bucket, Key=path.relative_to(root).as_posix(), Body=path.read_bytes())

    with ThreadPoolExecutor(THREADS) as pool:
        paths = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        for _ in pool.map(put, paths):
            pass


if __name__ == "__main__":
    main()
