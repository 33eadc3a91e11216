package main

// Watches, events, prepared queries, configuration entries, the operator's endpoints, snapshots and refusals.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
)

// follow runs a watch and gives its latest result through a function.
func follow(parameters map[string]any) (latest func() any, stop func()) {
	plan, err := watch.Parse(parameters)
	must(err)
	var value atomic.Value
	plan.Handler = func(_ uint64, result any) {
		if result != nil {
			text, _ := json.Marshal(result)
			value.Store(string(text))
		}
	}
	go plan.Run(addr)
	return func() any { return value.Load() }, plan.Stop
}

func watches() {
	name := fresh()
	see := func(parameters map[string]any, what string) func() {
		latest, stop := follow(parameters)
		return func() {
			eventually(fmt.Sprintf("watch %v sees %q", parameters["type"], what), func() bool {
				text, _ := latest().(string)
				return strings.Contains(text, what)
			})
			stop()
		}
	}
	waits := []func(){
		see(map[string]any{"type": "key", "key": name}, `"Value":"aGVsbG8="`),
		see(map[string]any{"type": "keyprefix", "prefix": name}, name),
		see(map[string]any{"type": "services"}, name),
		see(map[string]any{"type": "nodes"}, name),
		see(map[string]any{"type": "service", "service": name}, `"Port":80`),
		see(map[string]any{"type": "checks", "service": name}, name+"-check"),
		see(map[string]any{"type": "checks", "state": "warning"}, name+"-check"),
		see(map[string]any{"type": "event", "name": name}, name),
	}
	time.Sleep(100 * time.Millisecond)
	_, err := client.KV().Put(&api.KVPair{Key: name, Value: []byte("hello")}, nil)
	must(err)
	_, err = client.Catalog().Register(&api.CatalogRegistration{
		Node: name, Address: "10.1.1.1", Service: &api.AgentService{Service: name, Port: 80},
		Check: &api.AgentCheck{Node: name, CheckID: name + "-check", Name: "up", ServiceID: name, Status: "warning"},
	}, nil)
	must(err)
	_, _, err = client.Event().Fire(&api.UserEvent{Name: name}, nil)
	must(err)
	for _, wait := range waits {
		wait()
	}
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: name}, nil)
	must(err)
	_, err = client.KV().Delete(name, nil)
	must(err)
}

func events() {
	e, name := client.Event(), fresh()
	id, _, err := e.Fire(&api.UserEvent{Name: name, Payload: []byte{0, 1, 255}}, nil)
	must(err)
	var list []*api.UserEvent
	var meta *api.QueryMeta
	eventually("the event arrives", func() bool {
		list, meta, err = e.List(name, nil)
		must(err)
		return len(list) == 1
	})
	check(list[0].ID == id && bytes.Equal(list[0].Payload, []byte{0, 1, 255}), "event %+v", list[0])
	check(meta.LastIndex == e.IDToIndex(id), "index %d, of the id %d", meta.LastIndex, e.IDToIndex(id))
}

func preparedQueries() {
	q, name := client.PreparedQuery(), fresh()
	_, err := client.Catalog().Register(&api.CatalogRegistration{Node: name, Address: "10.1.1.1",
		Service: &api.AgentService{Service: name, Port: 80, Tags: []string{"v1"}}}, nil)
	must(err)
	definition := &api.PreparedQueryDefinition{Name: name, Service: api.ServiceQuery{
		Service: name, Tags: []string{"v1", "!v2"}, Near: "_agent", Failover: api.QueryFailoverOptions{NearestN: 3},
		OnlyPassing: true, NodeMeta: map[string]string{}}, DNS: api.QueryDNSOptions{TTL: "3s"}}
	id, _, err := q.Create(definition, nil)
	must(err)
	got, _, err := q.Get(id, nil)
	must(err)
	check(len(got) == 1 && got[0].Service.Failover.NearestN == 3 && got[0].Service.Near == "_agent", "query %+v", got)
	result, _, err := q.Execute(name, nil)
	must(err)
	check(len(result.Nodes) == 1 && result.Nodes[0].Service.Port == 80 && result.DNS.TTL == "3s", "result %+v", result)
	definition.ID, definition.Service.Tags = id, []string{"v2"}
	_, err = q.Update(definition, nil)
	must(err)
	result, _, err = q.Execute(id, nil)
	must(err)
	check(len(result.Nodes) == 0, "result %+v", result)
	list, _, err := q.List(nil)
	must(err)
	check(len(list) == 1, "queries %v", list)
	_, err = q.Delete(id, nil)
	must(err)
	_, _, err = q.Execute(name, nil)
	refused(err, 404, "Query not found")
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: name}, nil)
	must(err)
}

func configEntries() {
	c, name := client.ConfigEntries(), fresh()
	ok, _, err := c.Set(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: name, Protocol: "http"}, nil)
	must(err)
	check(ok, "not set")
	ok, _, err = c.Set(&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: name,
		Splits: []api.ServiceSplit{{Weight: 90.5}, {Weight: 9.5, Service: name + "-b"}}}, nil)
	check(err != nil, "a split over services of different protocols was accepted")
	for _, entry := range []api.ConfigEntry{
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: name, ConnectTimeout: 3 * time.Second,
			DefaultSubset: "v1", Subsets: map[string]api.ServiceResolverSubset{"v1": {Filter: "Service.Meta.version == v1"}}},
		&api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: name, Routes: []api.ServiceRoute{{
			Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/admin"}},
			Destination: &api.ServiceRouteDestination{RequestTimeout: 2 * time.Second, NumRetries: 3}}}},
		&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: name, Sources: []*api.SourceIntention{
			{Name: "web", Action: api.IntentionActionAllow}}},
		&api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: api.ProxyConfigGlobal, Config: map[string]any{"a": "b"}},
	} {
		ok, _, err := c.Set(entry, nil)
		must(err)
		check(ok, "%s was not set", entry.GetKind())
		got, _, err := c.Get(entry.GetKind(), entry.GetName(), nil)
		must(err)
		check(got.GetName() == entry.GetName() && got.GetModifyIndex() > 0, "entry %+v", got)
		list, _, err := c.List(entry.GetKind(), nil)
		must(err)
		check(len(list) > 0, "%s: nothing listed", entry.GetKind())
		if resolver, is := got.(*api.ServiceResolverConfigEntry); is {
			check(resolver.ConnectTimeout == 3*time.Second && resolver.Subsets["v1"].Filter != "", "resolver %+v", resolver)
		}
		if router, is := got.(*api.ServiceRouterConfigEntry); is {
			check(router.Routes[0].Destination.RequestTimeout == 2*time.Second, "router %+v", router)
		}
		done, _, err := c.CAS(entry, got.GetModifyIndex()+99, nil)
		must(err)
		check(!done, "%s: compare-and-set with a wrong index was done", entry.GetKind())
		done, _, err = c.DeleteCAS(entry.GetKind(), entry.GetName(), got.GetModifyIndex(), nil)
		must(err)
		check(done, "%s was not deleted", entry.GetKind())
		_, _, err = c.Get(entry.GetKind(), entry.GetName(), nil)
		refused(err, 404, "Config entry not found")
	}
	_, err = c.Delete(api.ServiceDefaults, name, nil)
	must(err)
}

func coordinates() {
	areas, err := client.Coordinate().Datacenters()
	must(err)
	check(len(areas) == 1 && areas[0].Datacenter == "dc1", "areas %v", areas)
	_, _, err = client.Coordinate().Nodes(nil)
	must(err)
}

func operator() {
	o := client.Operator()
	raft, err := o.RaftGetConfiguration(nil)
	must(err)
	check(len(raft.Servers) == 1 && raft.Servers[0].Leader && raft.Servers[0].Node == node, "raft %+v", raft)
	config, err := o.AutopilotGetConfiguration(nil)
	must(err)
	check(config.LastContactThreshold.String() == "200ms", "autopilot %+v", config)
	config.MaxTrailingLogs = 400
	ok, err := o.AutopilotCASConfiguration(config, nil)
	must(err)
	check(ok, "the configuration was not set")
	ok, err = o.AutopilotCASConfiguration(config, nil)
	must(err)
	check(!ok, "an old index was accepted")
	config.MaxTrailingLogs = 250
	must(o.AutopilotSetConfiguration(config, nil))
	_, err = o.AutopilotServerHealth(nil)
	must(err)
	state, err := o.AutopilotState(nil)
	must(err)
	check(len(state.Servers) == 1 && len(state.Voters) == 1, "state %+v", state)
	usage, _, err := o.Usage(nil)
	must(err)
	check(usage.Usage["dc1"].Nodes >= 1, "usage %+v", usage)
	err = o.RaftRemovePeerByAddress("127.0.0.9:1", nil)
	check(err != nil && strings.Contains(err.Error(), "was not found in the Raft configuration"), "remove: %v", err)
	_, err = o.KeyringList(nil)
	check(err != nil, "a keyring without a key was listed")
}

func snapshot() {
	name := fresh()
	_, err := client.KV().Put(&api.KVPair{Key: name, Value: []byte("kept")}, nil)
	must(err)
	stream, _, err := client.Snapshot().Save(nil)
	must(err)
	archive, err := io.ReadAll(stream)
	must(err)
	stream.Close()
	_, err = client.KV().Delete(name, nil)
	must(err)
	must(client.Snapshot().Restore(nil, bytes.NewReader(archive)))
	eventually("the pair is back", func() bool {
		pair, _, err := client.KV().Get(name, nil)
		return err == nil && pair != nil && string(pair.Value) == "kept"
	})
	archive[len(archive)/2] ^= 0xff
	check(client.Snapshot().Restore(nil, bytes.NewReader(archive)) != nil, "a damaged archive was restored")
	_, err = client.KV().Delete(name, nil)
	must(err)
}

func raw() {
	r, name := client.Raw(), fresh()
	_, err := r.Write("/v1/kv/"+name, map[string]int{"a": 1}, nil, nil)
	must(err)
	var pairs []map[string]any
	_, err = r.Query("/v1/kv/"+name, &pairs, nil)
	must(err)
	check(len(pairs) == 1 && pairs[0]["Key"] == name, "pairs %v", pairs)
	_, err = r.Delete("/v1/kv/"+name, nil)
	must(err)
}

func monitorAndMetrics() {
	stop := make(chan struct{})
	lines, err := client.Agent().Monitor("debug", stop, nil)
	must(err)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	until := time.After(deadline)
	for seen := false; !seen; {
		select {
		case line := <-lines:
			seen = line != ""
		case <-ticker.C:
			client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "monitored"})
			client.Agent().ServiceDeregister("monitored")
		case <-until:
			check(false, "no log line")
		}
	}
	close(stop)
	metrics, err := client.Agent().Metrics()
	must(err)
	check(metrics.Timestamp != "", "metrics %+v", metrics)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := client.Agent().MetricsStream(ctx)
	must(err)
	// Without the rest of a first interval there is nothing to read yet.
	cancel()
	stream.Close()
}

func queryOptions() {
	name := fresh()
	_, err := client.Catalog().Register(&api.CatalogRegistration{Node: name, Address: "10.1.1.1",
		Service: &api.AgentService{Service: name}}, nil)
	must(err)
	_, meta, err := client.Health().Service(name, "", false, &api.QueryOptions{UseCache: true})
	must(err)
	check(!meta.CacheHit, "a first answer came from the cache")
	_, meta, err = client.Health().Service(name, "", false, &api.QueryOptions{UseCache: true, MaxAge: time.Hour})
	must(err)
	check(meta.CacheHit, "a second answer did not come from the cache")
	_, meta, err = client.Health().Service(name, "", false, &api.QueryOptions{AllowStale: true})
	must(err)
	check(meta.KnownLeader && meta.LastIndex > 0, "meta %+v", meta)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	options := (&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: deadline}).WithContext(ctx)
	_, _, err = client.Health().Service(name, "", false, options)
	check(errors.Is(err, context.DeadlineExceeded), "the wait was not given up: %v", err)
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: name}, nil)
	must(err)
}

func refusals() {
	_, _, err := client.Catalog().Nodes(&api.QueryOptions{Datacenter: "elsewhere"})
	refused(err, 500, "No path to datacenter")
	_, err = client.KV().Put(&api.KVPair{Key: "x"}, &api.WriteOptions{Datacenter: "elsewhere"})
	refused(err, 500, "No path to datacenter")
	_, _, err = client.Catalog().Nodes(&api.QueryOptions{Filter: "Nope == 1"})
	check(err != nil, "a filter on nothing was accepted")
	_, _, err = client.ACL().TokenList(nil)
	refused(err, 401, "ACL support disabled")
}
