"""What holds for all tests."""

import gc
import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Machines that run tests are busy: how long one example takes says nothing about the code.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Thousands of tests are many objects, which stay: nobody need look through them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once() -> Iterator[None]:
    """Each gateway and each client reads the machine's certificates, 20 ms long: a third of all tests' time."""
    anew = ssl.create_default_context
    read: dict[object, ssl.SSLContext] = {}

    def create_default_context(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        if args:  # a server's, which is given a certificate of its own
            return anew(*args, **kwargs)
        named = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), *sorted(kwargs.items())
        if named not in read:
            read[named] = anew(**kwargs)
        return read[named]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", create_default_context)
        yield
