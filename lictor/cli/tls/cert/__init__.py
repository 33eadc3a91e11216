"""`lictor tls cert`: certificates signed by the cluster's own authority."""

SYNOPSIS = "Helpers for certificates"

HELP = """\
Usage: lictor tls cert <subcommand> [options]

  Makes certificates that the cluster's authority has signed.

    $ lictor tls cert create -server
    ==> Saved dc1-server-consul-0.pem
    ==> Saved dc1-server-consul-0-key.pem"""
