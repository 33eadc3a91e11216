"""Floor 5: the DNS door. It answers questions about nodes, services and prepared queries from the local store.

    message    requests parsed, records packed: bytes, nothing of Lictor's
    names      what a name under the domain asks for
    settings   what configuration sets
    addresses  which of a node's and a service's addresses is told to whom
    resolver   from a question and a view of the store to records          pure, a read like any other
    rotation   in which order equal instances are named
    packing    from records to an answer's bytes, cut to what the transport carries
    responder  the whole of it for one request, with the answer caches      pure, the one entry to what is above
    freshness  whether the store is fresh enough to answer from             pure
    recursors  questions of other domains, asked elsewhere                  shell
    udp, tcp   a socket, a connection                                       shell
    server     all of it on some addresses: what the agent starts           shell

What may live here: DNS. What may not: anything that decides what is registered or healthy; that is the store's.
"""
