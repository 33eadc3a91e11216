"""Every command of `lictor`: its words, the module that holds it, and the line it has in listings.

The listings (`lictor`, `lictor kv -h`) are printed from this table alone, so that asking for help, or mistyping a
command, imports no verb.
"""

from __future__ import annotations

COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("agent",): ("lictor.cli.agent", "Runs a Lictor agent"),
    ("catalog",): ("lictor.cli.catalog", "Interact with the catalog"),
    ("catalog", "datacenters"): ("lictor.cli.catalog.datacenters", "Lists all known datacenters"),
    ("catalog", "nodes"): ("lictor.cli.catalog.nodes", "Lists all nodes in the given datacenter"),
    ("catalog", "services"): ("lictor.cli.catalog.services", "Lists all registered services in a datacenter"),
    ("check",): ("lictor.cli.check", "Looks for what is wrong with an agent and says how to mend it"),
    ("completion",): ("lictor.cli.completion", "Prints a shell's completion script"),
    ("config",): ("lictor.cli.config", "Interact with the centralized configuration entries"),
    ("config", "delete"): ("lictor.cli.config.delete", "Delete a config entry"),
    ("config", "list"): ("lictor.cli.config.list", "List the names of the config entries of a kind"),
    ("config", "read"): ("lictor.cli.config.read", "Read a config entry"),
    ("config", "write"): ("lictor.cli.config.write", "Create or update a config entry"),
    ("connect",): ("lictor.cli.connect", "Interact with the mesh"),
    ("connect", "ca"): ("lictor.cli.connect.ca", "Interact with the mesh's certificate authority"),
    ("connect", "ca", "get-config"): (
        "lictor.cli.connect.ca.get_config",
        "Display the current certificate authority configuration",
    ),
    ("connect", "ca", "revoke"): (
        "lictor.cli.connect.ca.revoke",
        "Revoke a certificate of the mesh, or list what is revoked",
    ),
    ("connect", "ca", "rotate"): (
        "lictor.cli.connect.ca.rotate",
        "Have another root take the place of the present one",
    ),
    ("connect", "ca", "set-config"): (
        "lictor.cli.connect.ca.set_config",
        "Modify the current certificate authority configuration",
    ),
    ("connect", "proxy"): ("lictor.cli.connect.proxy", "Runs a Connect proxy"),
    ("connect", "envoy"): ("lictor.cli.connect.envoy", "Runs or configures Envoy as a proxy of the mesh"),
    ("connect", "ps"): ("lictor.cli.connect.ps", "Lists the proxies of an agent and how they fare"),
    ("connect", "redirect-traffic"): (
        "lictor.cli.connect.redirect_traffic",
        "Passes a service's connections through its proxy",
    ),
    ("debug",): ("lictor.cli.debug", "Records a debugging archive for operators"),
    ("event",): ("lictor.cli.event", "Fire a new event"),
    ("exec",): ("lictor.cli.exec", "Executes a command on many nodes"),
    ("force-leave",): ("lictor.cli.force_leave", 'Forces a member of the cluster to enter the "left" state'),
    ("info",): ("lictor.cli.info", "Provides debugging information for operators."),
    ("intention",): ("lictor.cli.intention", "Interact with Connect service intentions"),
    ("intention", "check"): (
        "lictor.cli.intention.check",
        "Check whether a connection between two services is allowed.",
    ),
    ("intention", "create"): ("lictor.cli.intention.create", "Create intentions for service connections."),
    ("intention", "delete"): ("lictor.cli.intention.delete", "Delete an intention."),
    ("intention", "explain"): (
        "lictor.cli.intention.explain",
        "Say why a connection is allowed or denied, and what would change it.",
    ),
    ("intention", "get"): ("lictor.cli.intention.get", "Show information about an intention."),
    ("intention", "list"): ("lictor.cli.intention.list", "List all intentions."),
    ("intention", "match"): ("lictor.cli.intention.match", "Show intentions that match a source or destination."),
    ("join",): ("lictor.cli.join", "Tell an agent to join a cluster"),
    ("keygen",): ("lictor.cli.keygen", "Generates a new encryption key"),
    ("keyring",): ("lictor.cli.keyring", "Manages gossip layer encryption keys"),
    ("kv",): ("lictor.cli.kv", "Interact with the key-value store"),
    ("kv", "delete"): ("lictor.cli.kv.delete", "Removes data from the KV store"),
    ("kv", "export"): ("lictor.cli.kv.export", "Exports a tree from the KV store as JSON"),
    ("kv", "get"): ("lictor.cli.kv.get", "Retrieves or lists data from the KV store"),
    ("kv", "import"): ("lictor.cli.kv.import_", "Imports a tree stored as JSON to the KV store"),
    ("kv", "put"): ("lictor.cli.kv.put", "Sets or updates data in the KV store"),
    ("leave",): ("lictor.cli.leave", "Gracefully leaves the cluster and shuts down"),
    ("lock",): ("lictor.cli.lock", "Execute a command holding a lock"),
    ("maint",): ("lictor.cli.maint", "Controls node or service maintenance mode"),
    ("members",): ("lictor.cli.members", "Lists the members of a cluster"),
    ("monitor",): ("lictor.cli.monitor", "Stream logs from an agent"),
    ("operator",): ("lictor.cli.operator", "Provides cluster-level tools for operators"),
    ("operator", "autopilot"): (
        "lictor.cli.operator.autopilot",
        "Provides tools for modifying Autopilot configuration",
    ),
    ("operator", "autopilot", "get-config"): (
        "lictor.cli.operator.autopilot.get_config",
        "Display the current Autopilot configuration",
    ),
    ("operator", "autopilot", "health"): (
        "lictor.cli.operator.autopilot.health",
        "Display the health of the servers as Autopilot sees it",
    ),
    ("operator", "autopilot", "set-config"): (
        "lictor.cli.operator.autopilot.set_config",
        "Modify the current Autopilot configuration",
    ),
    ("operator", "autopilot", "state"): (
        "lictor.cli.operator.autopilot.state",
        "Display the current Autopilot state",
    ),
    ("operator", "raft"): ("lictor.cli.operator.raft", "Provides cluster-level tools for operators of Raft"),
    ("operator", "raft", "list-peers"): (
        "lictor.cli.operator.raft.list_peers",
        "Display the current Raft peer configuration",
    ),
    ("operator", "raft", "remove-peer"): (
        "lictor.cli.operator.raft.remove_peer",
        "Remove a server from the Raft configuration",
    ),
    ("operator", "raft", "transfer-leader"): (
        "lictor.cli.operator.raft.transfer_leader",
        "Transfer raft leadership to another node",
    ),
    ("operator", "usage"): ("lictor.cli.operator.usage", "Provides cluster-level usage information"),
    ("operator", "usage", "instances"): (
        "lictor.cli.operator.usage.instances",
        "Display service instance usage information",
    ),
    ("reload",): ("lictor.cli.reload", "Triggers the agent to reload configuration files"),
    ("rtt",): ("lictor.cli.rtt", "Estimates network round trip time between nodes"),
    ("services",): ("lictor.cli.services", "Interact with services"),
    ("services", "deregister"): ("lictor.cli.services.deregister", "Deregister services with the local agent"),
    ("services", "export"): ("lictor.cli.services.export", "Export a service to other peers or partitions"),
    ("services", "register"): ("lictor.cli.services.register", "Register services with the local agent"),
    ("snapshot",): ("lictor.cli.snapshot", "Saves, restores and inspects snapshots of server state"),
    ("snapshot", "inspect"): ("lictor.cli.snapshot.inspect", "Displays information about a snapshot file"),
    ("snapshot", "restore"): ("lictor.cli.snapshot.restore", "Restores snapshot of server state"),
    ("snapshot", "save"): ("lictor.cli.snapshot.save", "Saves snapshot of server state"),
    ("tls",): ("lictor.cli.tls", "Builtin helpers for creating CAs and certificates"),
    ("tls", "ca"): ("lictor.cli.tls.ca", "Helpers for CAs"),
    ("tls", "ca", "create"): ("lictor.cli.tls.ca.create", "Create a new certificate authority"),
    ("tls", "cert"): ("lictor.cli.tls.cert", "Helpers for certificates"),
    ("tls", "cert", "create"): ("lictor.cli.tls.cert.create", "Create a new certificate"),
    ("validate",): ("lictor.cli.validate", "Validate config files/directories"),
    ("version",): ("lictor.cli.version", "Prints the version"),
    ("watch",): ("lictor.cli.watch", "Watch for changes"),
}


def find(words: list[str]) -> tuple[str, ...]:
    """The longest command that words begin with; empty when the first word is no command."""
    name: tuple[str, ...] = ()
    while len(name) < len(words) and (*name, words[len(name)]) in COMMANDS:
        name = (*name, words[len(name)])
    return name


def children(name: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The subcommands one word below name, in order; below the empty name, the commands themselves."""
    return sorted(command for command in COMMANDS if command[:-1] == name)


def listing(name: tuple[str, ...]) -> str:
    """The subcommands of name, one a line: four spaces, the word, the synopsis."""
    below = children(name)
    width = max(len(command[-1]) for command in below)
    return "\n".join(f"    {command[-1]:<{width}}    {COMMANDS[command][1]}" for command in below)
