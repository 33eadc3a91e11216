"""`lictor tls`: certificates for the connections between agents, made without any other tool."""

SYNOPSIS = "Builtin helpers for creating CAs and certificates"

HELP = """\
Usage: lictor tls <subcommand> <subcommand> [options]

  Makes the certificates that agents show each other.

  Create a certificate authority, once for a cluster:

    $ lictor tls ca create

  Create a certificate for each server, and one for clients:

    $ lictor tls cert create -server
    $ lictor tls cert create -client"""
