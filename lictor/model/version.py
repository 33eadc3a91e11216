"""Which version this is, and whose interface it speaks."""

from lictor import __version__

API_VERSION = "1.20.0"
"""The version of Consul whose public interfaces this one follows: clients choose their behaviour by it."""

__all__ = ["API_VERSION", "__version__"]
