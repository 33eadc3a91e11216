"""`lictor tls ca`: the cluster's own certificate authority."""

SYNOPSIS = "Helpers for CAs"

HELP = """\
Usage: lictor tls ca <subcommand> [options]

  Makes the certificate authority that signs the agents' certificates.

    $ lictor tls ca create
    ==> Saved consul-agent-ca.pem
    ==> Saved consul-agent-ca-key.pem"""
