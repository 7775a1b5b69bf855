"""What holds for all tests."""

import gc

from hypothesis import settings

# Machines that run tests are busy: how long one example takes says nothing about the code.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Thousands of tests are many objects, which stay: nobody need look through them again and again."""
    gc.collect()
    gc.freeze()
