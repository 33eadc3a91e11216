"""The calls of the API by family. A family only describes: see `lictor.client.calls`."""
