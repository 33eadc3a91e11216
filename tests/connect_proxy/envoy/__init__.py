"""Envoy as a proxy of the mesh: what it is told, by itself and by real Envoys."""
