"""Results of steps made by hand, and places to share them: in memory, a folder, S3 as moto serves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock
from uuid import uuid4

import torch

from bench.runner.store import Store, key_of

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


def kept(store: Store, label: str = "step", inputs: dict[str, str] | None = None) -> str:
    """Store the result of a step of this name; returns its key."""
    identity = {"kind": "host", "spec": {"name": label}, "inputs": inputs or {}, "sources": {"m": "0"}, "data": "d"}
    key = key_of(identity)
    model = {"w": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(3, dtype=torch.int8)}
    store.save(key, {"identity": identity, "label": label, "seconds": 1.5}, {"name": label}, {"model": model})
    return key


@contextmanager
def moto() -> Iterator[str]:
    """A server that answers as S3 does, and of which the environment knows; gives the URL of an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with mock.patch.dict(os.environ, {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}):
            boto3.client("s3").create_bucket(Bucket="bucket")
            yield "s3://bucket"
    finally:
        server.stop()


def a_url(kind: str, folder: Path, bucket: str = "") -> str:
    """A URL where nothing is: `memory`, `file`, or `s3` in the bucket."""
    name = uuid4().hex
    return {"memory": f"memory://{name}", "file": f"file://{folder}/{name}", "s3": f"{bucket}/{name}"}[kind]
