"""An example of a user's actor: the files of a radio station, behind an API with signed requests (media_server.py in this directory).

    python media_file_actor.py --url=http://127.0.0.1:8080/api/v1/media_file --secret='...' \\
        --source_prefix=/srv/audio/ --threads=1 --source_filter="^.*[mM][pP]3$" /srv/audio/
"""

import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import click
import requests
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

from autosync import Actor, File, SecretOption, main


class MediaFileActor(Actor, HTTPSignatureKeyResolver):
    options = (
        click.Option(["--url"], help="Base URL to connect to: http://www.example.org/api/v1/media_file"),
        SecretOption(["--secret"], help="Secret API key"),
    )

    def list(self):
        after = ""
        while after is not None:
            page = self.request("GET", f"?limit=1000&after={after}").json()
            for one in page["files"]:
                yield File(one["key"], one["size"], one.get("mtime"), one.get("digest"))
            if page["next"] == after:
                raise RuntimeError("the listing does not go on")
            after = page["next"]

    def upload(self, file):
        with file.open() as content:
            self.request("PUT", f"/{quote(file.key)}", content.read())

    def delete(self, file):
        self.request("DELETE", f"/{quote(file.key)}")

    def request(self, method, path, content=None):
        type_ = {"Content-Type": "application/octet-stream"} if content is not None else {}
        request = requests.Request(method, self.url + path, type_, data=content).prepare()
        covered = ["@method", "@authority", "@path", "@query"]
        if content is not None:
            covered += ["content-digest", "content-length", "content-type"]
        HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=self).sign(
            request, key_id="autosync", tag="autosync", nonce=secrets.token_hex(), expires=datetime.now(UTC) + timedelta(minutes=5),
            covered_component_ids=covered, body=content,
        )  # fmt: skip
        with requests.Session() as session:
            response = session.send(request, timeout=60)
        response.raise_for_status()
        return response

    def resolve_private_key(self, key_id):
        return self.secret.encode()

    resolve_public_key = resolve_private_key


if __name__ == "__main__":
    main(actor=MediaFileActor)
