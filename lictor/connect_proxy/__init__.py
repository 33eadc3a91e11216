"""Floor 5: the proxies that give services their identity, and what launches and configures them.

The built-in proxy (`lictor connect proxy`) is a process that uses its local agent's HTTP API alone. Its parts, from the
bytes upwards:

    ends           the two ends of a connection, one with TLS and one without, joined back to back
    passage        one connection through the proxy: what its ends have in common, its deadlines
    inbound        connections from the mesh to the service: identity, intention, then the service
    outbound       connections of the service to an upstream: an endpoint is chosen, its identity verified
    endpoints      which endpoint of an upstream is next: weights, failures, ejection
    certificates   TLS contexts, and what a peer's certificate says
    client_hello   the ticket that a client offers
    authorizing    which peers the intentions let in
    settings       what the proxy block of a registration means
    source, watch  what the agent says, followed by blocking queries
    sidecar        one identity with its listeners, kept as the agent says
    node           all sidecars of a node in one process
    handover       listeners handed from one process to the next
    admin, metrics, access_log   what operators see

Imports `lictor.agent` (its log) and below. Envoy's side is in `envoy`.
"""
