"""What tests of publishing have in common."""

import os

import pytest


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power cuts are not tested here; builders in processes of their own still flush."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
