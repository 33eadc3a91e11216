# A server as a team runs it.
datacenter       = "east-1"
data_dir         = "/opt/lictor/data"
node_name        = "server-1"
server           = true
bootstrap_expect = 3
client_addr      = "127.0.0.1 {{ GetPrivateIP }}"
bind_addr        = "{{ GetInterfaceIP \"eth0\" }}"
encrypt          = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="
retry_join       = ["10.1.2.4", "provider=aws tag_key=role tag_value=server"]
log_level        = "INFO"
enable_local_script_checks = true
recursors        = ["1.1.1.1", "8.8.8.8:53"]

node_meta {
  rack = "r1"
}

ports {
  https    = 8501
  grpc     = 8502
  grpc_tls = 8503
}

acl = {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
  tokens {
    agent = "b2f1a9d4-0000-4000-8000-000000000001"
  }
}

tls {
  defaults {
    ca_file         = "/etc/lictor/ca.pem"
    cert_file       = "/etc/lictor/cert.pem"
    key_file        = "/etc/lictor/key.pem"
    verify_outgoing = true
  }
  internal_rpc {
    verify_incoming        = true
    verify_server_hostname = true
  }
}

dns_config {
  node_ttl    = "30s"
  service_ttl = { "*" = "5s", "web" = "10s" }
}

telemetry {
  prometheus_retention_time = "60s"
  prefix_filter             = ["+consul.raft", "-consul.http"]
  disable_hostname          = true
}

limits {
  http_max_conns_per_client = 1000
  rpc_rate                  = 100.5
}

autopilot {
  cleanup_dead_servers   = true
  last_contact_threshold = "500ms"
}

performance { raft_multiplier = 1 }
ui_config { enabled = true, metrics_provider = "prometheus" }
connect {
  enabled     = true
  ca_provider = "consul"
  ca_config {
    leaf_cert_ttl = "72h"
  }
}

services {
  name = "web"
  port = 8080
  tags = ["v1", "primary"]
  meta {
    version = "1.2"
  }
  weights = { passing = 10, warning = 1 }
  check {
    http     = "http://localhost:8080/health"
    interval = "10s"
    timeout  = "1s"
    header {
      X-Probe = ["yes", "1"]
    }
  }
  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination_name = "db"
          local_bind_port  = 9191
        }
        config {
          "envoy_prometheus_bind_addr" = "0.0.0.0:9102"
        }
      }
    }
  }
}

services {
  id      = "db-1"
  name    = "db"
  port    = 5432
  tagged_addresses {
    lan { address = "10.1.2.3", port = 5432 }
  }
  checks = [
    { args = ["/usr/bin/check-db", "-v"], interval = "30s" },
    { tcp = "localhost:5432", interval = "10s" }
  ]
}

checks {
  id   = "disk"
  name = "disk space"
  args = ["/usr/bin/check-disk"]
  interval = "1m"
}

watches = [
  {
    type    = "key"
    key     = "config/web"
    args    = ["/usr/bin/reload-web"]
  }
]
