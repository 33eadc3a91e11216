// Prometheus' own discovery of targets in Consul, for a Prometheus that was built without it, as Debian's is: what the
// discovery finds goes to a file, which such a Prometheus reads with `file_sd_configs`.
//
// Arguments: a file with the configuration (one entry of `consul_sd_configs`), the file to write.
package main

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/consul"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"gopkg.in/yaml.v2"
)

type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	must(err)
	var config consul.SDConfig
	must(yaml.UnmarshalStrict(text, &config))
	registry := prometheus.NewRegistry()
	metrics := config.NewDiscovererMetrics(registry, discovery.NewRefreshMetrics(registry))
	must(metrics.Register())
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	found, err := consul.NewDiscovery(&config, logger, metrics)
	must(err)
	updates := make(chan []*targetgroup.Group)
	go found.Run(context.Background(), updates)
	groups := map[string]*targetgroup.Group{}
	for update := range updates {
		for _, one := range update {
			groups[one.Source] = one
		}
		write(groups)
	}
}

// write replaces the file with the targets of all services, one group for each target, so that its labels are its own.
func write(groups map[string]*targetgroup.Group) {
	rows := []group{}
	for _, one := range groups {
		for _, target := range one.Targets {
			row := group{Labels: map[string]string{}}
			for name, value := range one.Labels.Merge(target) {
				if name == "__address__" {
					row.Targets = []string{string(value)}
				} else {
					row.Labels[string(name)] = string(value)
				}
			}
			rows = append(rows, row)
		}
	}
	text, err := json.Marshal(rows)
	must(err)
	must(os.WriteFile(os.Args[2]+".new", text, 0o644))
	must(os.Rename(os.Args[2]+".new", os.Args[2]))
}
