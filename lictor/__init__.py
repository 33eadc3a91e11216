"""Lictor: a service registry and mesh for every machine, speaking Consul's public interfaces."""

__version__ = "0.1.0"
