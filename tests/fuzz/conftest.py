"""The agent that is attacked: that of the HTTP door's tests."""

from tests.http.conftest import door

__all__ = ["door"]
