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
settings.register_profile("long", settings.get_profile("busy"), max_examples=100_000, print_blob=True)
EXAMPLES = "GATEWAY_FUZZ_EXAMPLES"  # how many each property gets in the profile "long"
settings.load_profile("long" if os.environ.get(EXAMPLES) else "busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the profile "long", give every property its number of examples, also one that sets a number of its own.
    Hypothesis has no other way to change the settings of a test."""
    if not os.environ.get(EXAMPLES):
        return
    for item in items:
        test: Any = getattr(item, "obj", None)
        if own := getattr(test, "_hypothesis_internal_use_settings", None):
            test._hypothesis_internal_use_settings = settings(own, max_examples=int(os.environ[EXAMPLES]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return two processes a core: about half of the tests' time is waiting."""
    return 2 * (os.cpu_count() or 1)


def pytest_sessionstart() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among the tests: they are many objects, which stay."""
    gc.collect()
    gc.freeze()
    gc.enable()


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
