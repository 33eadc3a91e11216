package main

// The agent, its services and checks, the catalog and its health.

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

func status() {
	leader, err := client.Status().Leader()
	must(err)
	peers, err := client.Status().Peers()
	must(err)
	check(len(peers) == 1 && peers[0] == leader && leader != "", "leader %q, peers %v", leader, peers)
}

func agent() {
	a := client.Agent()
	name, err := a.NodeName()
	must(err)
	check(name == node, "node name %q", name)
	self, err := a.Self()
	must(err)
	check(self["Config"]["Datacenter"] == "dc1" && self["Member"]["Name"] == node, "self %v", self["Config"])
	host, err := a.Host()
	must(err)
	check(host["Memory"] != nil && host["CPU"] != nil && host["Host"] != nil && host["Disk"] != nil, "host %v", host)
	members, err := a.Members(false)
	must(err)
	check(len(members) == 1 && members[0].Name == node && members[0].Status == 1, "members %v", members)
	must(a.Join(fmt.Sprintf("127.0.0.1:%d", members[0].Port), false))
	check(a.Join("127.0.0.1:1", false) != nil, "joining nobody succeeded")
	must(a.Reload())
	must(a.EnableNodeMaintenance("because"))
	found, err := a.Checks()
	must(err)
	check(found[api.NodeMaint] != nil && found[api.NodeMaint].Notes == "because", "checks %v", found)
	must(a.DisableNodeMaintenance())
	err = a.ForceLeave("nobody")
	check(err != nil && strings.Contains(err.Error(), "No node found with name 'nobody'"), "force-leave: %v", err)
}

func serviceAndSidecar() {
	a, name := client.Agent(), fresh()
	must(a.ServiceRegister(&api.AgentServiceRegistration{
		Name: name, ID: name + "-1", Tags: []string{"a", "b"}, Port: 80, Address: "127.0.0.1",
		Meta:            map[string]string{"k": "v"},
		Weights:         &api.AgentWeights{Passing: 5, Warning: 2},
		TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "198.51.100.1", Port: 8080}},
		Check:           &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
		Connect: &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{
			Proxy: &api.AgentServiceConnectProxyConfig{
				Upstreams: []api.Upstream{{DestinationName: "db", LocalBindPort: 9191, Config: map[string]any{"x": 1}}},
			},
		}},
	}))
	services, err := a.ServicesWithFilter(fmt.Sprintf("Service == %q", name))
	must(err)
	got := services[name+"-1"]
	check(len(services) == 1 && got.Port == 80 && got.Weights.Passing == 5 && got.Meta["k"] == "v" &&
		got.TaggedAddresses["wan"].Port == 8080, "services %+v", services)
	one, meta, err := a.Service(name+"-1-sidecar-proxy", nil)
	must(err)
	check(one.Kind == api.ServiceKindConnectProxy && one.Proxy.DestinationServiceName == name &&
		one.Proxy.Upstreams[0].LocalBindPort == 9191 && one.Port >= 21000, "sidecar %+v", one)
	check(meta.LastContentHash == one.ContentHash && one.ContentHash != "", "hash %q %q", meta.LastContentHash, one.ContentHash)

	// Waits for the service's content to become something else.
	_, meta, err = a.Service(name+"-1", nil)
	must(err)
	started := time.Now()
	time.AfterFunc(300*time.Millisecond, func() {
		a.ServiceRegister(&api.AgentServiceRegistration{Name: name, ID: name + "-1", Port: 81})
	})
	changed, _, err := a.Service(name+"-1", &api.QueryOptions{WaitHash: meta.LastContentHash, WaitTime: deadline})
	must(err)
	check(changed.Port == 81 && time.Since(started) < deadline, "after the change %+v", changed)

	state, info, err := a.AgentHealthServiceByID(name + "-1")
	must(err)
	check(state == api.HealthPassing && info.Service.ID == name+"-1", "health %v %+v", state, info)
	must(a.EnableServiceMaintenance(name+"-1", "upgrade"))
	state, infos, err := a.AgentHealthServiceByName(name)
	must(err)
	// The status line tells no maintenance, the body does.
	check(state == api.HealthCritical && infos[0].AggregatedStatus == api.HealthMaint, "health %v %+v", state, infos)
	must(a.DisableServiceMaintenance(name + "-1"))
	state, _, err = a.AgentHealthServiceByName("no-" + name)
	must(err)
	check(state == api.HealthCritical, "health of nothing: %v", state)
	must(a.ServiceRegisterOpts(&api.AgentServiceRegistration{Name: name, ID: name + "-1"},
		api.ServiceRegisterOpts{ReplaceExistingChecks: true}))
	left, err := a.ChecksWithFilter(fmt.Sprintf("ServiceName == %q", name))
	must(err)
	check(len(left) == 0, "checks %v", left)
	must(a.ServiceDeregister(name + "-1"))
	_, _, err = a.Service(name+"-1", nil)
	refused(err, 404, "unknown service ID")
}

func checks() {
	a, name := client.Agent(), fresh()
	must(a.CheckRegister(&api.AgentCheckRegistration{Name: name, Notes: "told",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h"}}))
	for want, report := range map[string]func(string, string) error{
		api.HealthPassing: a.PassTTL, api.HealthWarning: a.WarnTTL, api.HealthCritical: a.FailTTL,
	} {
		must(report(name, "as told"))
		found, err := a.Checks()
		must(err)
		check(found[name].Status == want && found[name].Output == "as told", "check %+v", found[name])
	}
	must(a.UpdateTTL(name, "updated", "pass"))
	must(a.CheckRegister(&api.AgentCheckRegistration{Name: name + "-http", AgentServiceCheck: api.AgentServiceCheck{
		HTTP: "http://" + addr + "/v1/status/leader", Interval: "100ms", Timeout: "2s", Method: "GET",
		Header: map[string][]string{"X-A": {"1"}}, SuccessBeforePassing: 1, FailuresBeforeCritical: 2,
	}}))
	eventually("the HTTP check passes", func() bool {
		found, err := a.Checks()
		must(err)
		return found[name+"-http"].Status == api.HealthPassing
	})
	eventually("the catalog knows", func() bool {
		rows, _, err := client.Health().Node(node, nil)
		must(err)
		for _, row := range rows {
			if row.CheckID == name+"-http" && row.Status == api.HealthPassing {
				return true
			}
		}
		return false
	})
	must(a.CheckDeregister(name))
	must(a.CheckDeregister(name + "-http"))
}

func catalogAndHealth() {
	c, h, name := client.Catalog(), client.Health(), fresh()
	for i, state := range []string{api.HealthPassing, api.HealthWarning, api.HealthCritical} {
		id := fmt.Sprintf("%s-%d", name, i)
		_, err := c.Register(&api.CatalogRegistration{
			Node: name, Address: "10.1.1.1", NodeMeta: map[string]string{"rack": "r1"},
			Service: &api.AgentService{ID: id, Service: name, Port: 80 + i, Tags: []string{"all", state}},
			Checks: api.HealthChecks{{Node: name, CheckID: id, Name: "up", ServiceID: id, Status: state,
				Definition: api.HealthCheckDefinition{TCP: "10.1.1.1:80", IntervalDuration: 5 * time.Second}}},
		}, nil)
		must(err)
	}
	nodes, _, err := c.Nodes(&api.QueryOptions{NodeMeta: map[string]string{"rack": "r1"}, Filter: fmt.Sprintf("Node == %q", name)})
	must(err)
	check(len(nodes) == 1 && nodes[0].Address == "10.1.1.1", "nodes %v", nodes)
	services, _, err := c.Services(nil)
	must(err)
	check(len(services[name]) == 4, "services %v", services[name])
	rows, _, err := c.ServiceMultipleTags(name, []string{"all", api.HealthWarning}, nil)
	must(err)
	check(len(rows) == 1 && rows[0].ServicePort == 81, "rows %v", rows)
	whole, _, err := c.Node(name, nil)
	must(err)
	check(len(whole.Services) == 3, "node %v", whole)
	list, _, err := c.NodeServiceList(name, nil)
	must(err)
	check(list.Node.Node == name && len(list.Services) == 3, "node's services %v", list)
	datacenters, err := c.Datacenters()
	must(err)
	check(len(datacenters) == 1 && datacenters[0] == "dc1", "datacenters %v", datacenters)
	entries, _, err := h.Service(name, "", true, &api.QueryOptions{Near: "_agent", RequireConsistent: true})
	must(err)
	check(len(entries) == 1 && entries[0].Checks.AggregatedStatus() == api.HealthPassing, "entries %v", entries)
	check(entries[0].Checks[0].Definition.IntervalDuration == 5*time.Second, "definition %+v", entries[0].Checks[0].Definition)
	all, _, err := h.Service(name, "", false, nil)
	must(err)
	check(len(all) == 3, "entries %v", all)
	onNode, _, err := h.Node(name, nil)
	must(err)
	check(len(onNode) == 3 && onNode.AggregatedStatus() == api.HealthCritical, "checks %v", onNode)
	ofService, _, err := h.Checks(name, &api.QueryOptions{Filter: "Status == warning"})
	must(err)
	check(len(ofService) == 1, "checks %v", ofService)
	inState, _, err := h.State(api.HealthCritical, &api.QueryOptions{Filter: fmt.Sprintf("Node == %q", name)})
	must(err)
	check(len(inState) == 1, "checks %v", inState)
	connect, _, err := h.Connect(name, "", false, nil)
	must(err)
	check(len(connect) == 0, "connect %v", connect)

	index := client.Health()
	_, meta, err := index.Service(name, "", true, nil)
	must(err)
	time.AfterFunc(200*time.Millisecond, func() {
		c.Deregister(&api.CatalogDeregistration{Node: name, ServiceID: name + "-0"}, nil)
	})
	after, later, err := index.Service(name, "", true, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: deadline})
	must(err)
	check(len(after) == 0 && later.LastIndex > meta.LastIndex && later.KnownLeader, "after %v %+v", after, later)
	_, err = c.Deregister(&api.CatalogDeregistration{Node: name}, nil)
	must(err)
}
