"""A process that asks boto3 and the bucket while this one loads other things: what it finds out is what this one would have found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials

from autosync.actors import load
from autosync.actors.s3.connection_settings import ConnectionSettings
from autosync.errors import AutosyncError
from lab.buckets import Bucket
from lab.forward_proxy import ForwardProxy

#: Checks a bucket by a prefetch process, lists it, and then has a fork, as a worker is one, check it and send to it; prints the results.
CHECKED = """
import json, os, signal, sys
from autosync.actors import load
from autosync.process.forked import ForkedGenerator
from autosync.errors import AutosyncError
from autosync.files import File

url, bucket, trouble = sys.argv[1:]
actor = load("s3")(target_container=bucket, endpoint_url=url)
if trouble == "it is killed":
    actor._check_result = lambda: os.kill(os.getpid(), signal.SIGKILL)
elif trouble == "it fails":
    actor._check_result = lambda: 1 / 0
elif trouble == "it returns nothing":
    from autosync.actors.s3.connection_settings import ConnectionSettings
    ConnectionSettings.as_tuple = lambda self: None
if trouble != "there is none":
    actor.start_prefetch()
try:
    actor.check()
    failure = ["", ""]
except AutosyncError as error:
    failure = [type(error).__name__, str(error)]
by_boto3 = "botocore" in sys.modules
keys = sorted(file.key for file in actor.list()) if not failure[0] else []
ahead = actor.clock_ahead() if not failure[0] else 0.0
worker = os.fork()
if not worker:
    other = load("s3")(target_container=bucket, endpoint_url=url)
    try:
        other.check()
        other.delete_many([File("a"), File("b")])
    except AutosyncError:
        pass
    os._exit("botocore" in sys.modules)
in_worker = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
actor.close()
print(json.dumps({"failure": failure, "keys": keys, "ahead": ahead, "boto3": by_boto3, "in the worker": bool(in_worker)}))
"""


def checked(url: str, bucket: str, trouble: str = "none", **environ: str) -> dict[str, Any]:
    message = subprocess.run(
        [sys.executable, "-c", CHECKED, url, bucket, trouble],
        env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (message.returncode, message.stderr) == (0, "")
    found: dict[str, Any] = json.loads(message.stdout)
    return found


@pytest.mark.parametrize("trouble", ["none", "it is killed", "it fails", "it returns nothing", "there is none"])
def test_whatever_becomes_of_the_prefetch_process_the_bucket_is_checked_and_listed(bucket: Bucket, trouble: str) -> None:
    for key in ("a", "b", "c"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")

    found = checked(bucket.server.url, bucket.name, trouble)

    assert (found["failure"], found["keys"]) == (["", ""], ["a", "b", "c"])
    assert abs(found["ahead"]) < 1.5
    assert (found["boto3"], found["in the worker"]) == ((False, False) if trouble == "none" else (True, True))
    assert bucket.sizes() == {"c": 1}, "what the worker was asked to delete is gone"


def test_a_proxy_that_the_prefetch_process_has_found_is_used_by_the_others_without_boto3(bucket: Bucket) -> None:
    for key in ("a", "b", "c"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")

    with ForwardProxy("joe:secret") as proxy:
        found = checked(bucket.server.url, bucket.name, http_proxy=proxy.url_for_clients)

    assert (found["failure"], found["keys"], found["boto3"], found["in the worker"]) == (["", ""], ["a", "b", "c"], False, False)
    assert proxy.count("GET") >= 3
    assert proxy.count("POST") == 1
    assert bucket.sizes() == {"c": 1}


@pytest.mark.parametrize("wrong", ["bucket", "key", "nobody there", "no credentials", "profile"])
def test_what_is_wrong_is_reported_as_if_there_were_no_prefetching(bucket: Bucket, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, name = bucket.server.url, bucket.name
    if wrong == "bucket":
        name = "there-is-no-such-bucket"
    elif wrong == "key":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the right one")
    elif wrong == "nobody there":
        url = "http://127.0.0.1:1"
    elif wrong == "no credentials":
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", "/nowhere")
    else:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AutosyncError) as here:
        load("s3")(target_container=name, endpoint_url=url).check()

    found = checked(url, name)

    assert found["failure"] == [type(here.value).__name__, str(here.value)]
    assert not found["boto3"], "the prefetch process has reported it"


def access(passed: Any, **more: Any) -> ConnectionSettings:
    return ConnectionSettings(
        **{
            "address": "https://h/b", "region": "eu-west-1", "trusted": "/ca.pem", "proxy": "http://joe:secret@p:1",
            "credentials": passed and passed.get_frozen_credentials, "lasting": type(passed) is Credentials, **more,
        }
    )  # fmt: skip


def test_an_access_goes_through_a_tuple_unchanged() -> None:
    for token in (None, "token"):
        values = access(Credentials("access", "secret", token)).as_tuple()
        assert values is not None
        restored = ConnectionSettings.from_tuple(values)

        assert restored.as_tuple() == values
        assert (restored.address, restored.region, restored.trusted) == ("https://h/b", "eu-west-1", "/ca.pem")
        assert restored.proxy == "http://joe:secret@p:1"
        assert "secret" not in repr(restored)
        assert restored.credentials is not None
        assert tuple(restored.credentials()) == ("access", "secret", token)


def test_credentials_that_expire_are_not_passed_on() -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    passing = RefreshableCredentials("access", "secret", "token", later, dict, "a role")

    assert access(passing).as_tuple() is None
    assert access(None).as_tuple() is None
    assert access(Credentials("access", "secret")).as_tuple() is not None


def test_credentials_that_boto3_renews_are_recognized(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A program that gives them, with a time at which they end (credential_process of the AWS configuration)."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    passed = {"Version": 1, "AccessKeyId": os.environ["AWS_ACCESS_KEY_ID"], "SecretAccessKey": os.environ["AWS_SECRET_ACCESS_KEY"]}
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    bucket.client.put_object(Bucket=bucket.name, Key="c", Body=b"x")
    for ends in ({"Expiration": later, "SessionToken": ""}, {}):
        (tmp_path / "given.json").write_text(json.dumps(passed | ends))
        config.write_text(f"[default]\ncredential_process = cat {tmp_path}/given.json\n")
        found = checked(bucket.server.url, bucket.name)

        assert (found["failure"], found["keys"]) == (["", ""], ["c"])
        assert found["boto3"] == bool(ends)
