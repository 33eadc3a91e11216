package main

// Keys and values, transactions, sessions, and what is built of them: locks and semaphores.

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

func kv() {
	k, name := client.KV(), fresh()
	missing, _, err := k.Get(name, nil)
	must(err)
	check(missing == nil, "pair %v", missing)
	_, err = k.Put(&api.KVPair{Key: name + "/a", Value: []byte{0, 255, 1}, Flags: 1<<64 - 1}, nil)
	must(err)
	pair, meta, err := k.Get(name+"/a", &api.QueryOptions{AllowStale: true})
	must(err)
	check(bytes.Equal(pair.Value, []byte{0, 255, 1}) && pair.Flags == 1<<64-1, "pair %+v", pair)
	check(meta.LastIndex == pair.ModifyIndex, "index %d of %d", meta.LastIndex, pair.ModifyIndex)
	pair.Value = []byte("two")
	ok, _, err := k.CAS(pair, nil)
	must(err)
	check(ok, "compare-and-set with the right index was refused")
	ok, _, err = k.CAS(pair, nil)
	must(err)
	check(!ok, "compare-and-set with an old index was done")
	_, err = k.Put(&api.KVPair{Key: name + "/b/c d+é%/"}, nil)
	must(err)
	keys, _, err := k.Keys(name+"/", "/", nil)
	must(err)
	check(strings.Join(keys, ",") == name+"/a,"+name+"/b/", "keys %v", keys)
	pairs, _, err := k.List(name+"/", nil)
	must(err)
	check(len(pairs) == 2 && pairs[1].Key == name+"/b/c d+é%/", "pairs %v", pairs)
	ok, _, err = k.DeleteCAS(pair, nil)
	must(err)
	check(!ok, "delete with an old index was done")
	_, err = k.Delete(name+"/a", nil)
	must(err)
	_, err = k.DeleteTree(name, nil)
	must(err)
	pairs, _, err = k.List(name, nil)
	must(err)
	check(len(pairs) == 0, "pairs %v", pairs)
}

func transactions() {
	name := fresh()
	ok, response, _, err := client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: name, Value: []byte("v")}},
		{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: name, Address: "10.1.1.1"}}},
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: name, Service: api.AgentService{ID: name, Service: name, Port: 80}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: name, CheckID: name, Name: "up", Status: "passing", ServiceID: name}}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: name}},
	}, nil)
	must(err)
	check(ok && len(response.Results) == 5 && string(response.Results[4].KV.Value) == "v", "response %+v", response)
	ok, response, _, err = client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: name, Value: []byte("no")}},
		{Node: &api.NodeTxnOp{Verb: api.NodeCAS, Node: api.Node{Node: name, Address: "10.1.1.2", ModifyIndex: 1}}},
	}, nil)
	must(err)
	check(!ok && len(response.Errors) == 1 && response.Errors[0].OpIndex == 1, "response %+v", response)
	pair, _, err := client.KV().Get(name, nil)
	must(err)
	check(string(pair.Value) == "v", "a refused transaction wrote %q", pair.Value)
	ok, kvResponse, _, err := client.KV().Txn(api.KVTxnOps{
		{Verb: api.KVCheckIndex, Key: name, Index: pair.ModifyIndex}, {Verb: api.KVDelete, Key: name},
	}, nil)
	must(err)
	check(ok && len(kvResponse.Results) == 1, "response %+v", kvResponse)
	ok, _, _, err = client.Txn().Txn(api.TxnOps{{Node: &api.NodeTxnOp{Verb: api.NodeDelete, Node: api.Node{Node: name}}}}, nil)
	must(err)
	check(ok, "the node was not deleted")
}

func sessions() {
	s := client.Session()
	id, _, err := s.Create(&api.SessionEntry{Name: "a", TTL: "60s", Behavior: api.SessionBehaviorDelete, LockDelay: time.Second}, nil)
	must(err)
	info, _, err := s.Info(id, nil)
	must(err)
	check(info.TTL == "60s" && info.LockDelay == time.Second && info.Node == node && len(info.NodeChecks) == 1, "session %+v", info)
	renewed, _, err := s.Renew(id, nil)
	must(err)
	check(renewed.ID == id, "renewed %+v", renewed)
	list, _, err := s.List(nil)
	must(err)
	onNode, _, err := s.Node(node, nil)
	must(err)
	check(len(list) > 0 && len(onNode) > 0, "lists %v %v", list, onNode)
	done := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- s.RenewPeriodic("60s", id, nil, done) }()
	close(done)
	must(<-ended)
	info, _, err = s.Info(id, nil)
	must(err)
	check(info == nil, "the session is still there: %+v", info)
	renewed, _, err = s.Renew(id, nil)
	must(err)
	check(renewed == nil, "a session that is gone was renewed: %+v", renewed)
	id, _, err = s.CreateNoChecks(&api.SessionEntry{}, nil)
	must(err)
	_, err = s.Destroy(id, nil)
	must(err)
}

func lock() {
	name := fresh()
	options := func(value string) *api.LockOptions {
		return &api.LockOptions{Key: name, Value: []byte(value), SessionTTL: "60s", LockDelay: time.Millisecond}
	}
	first, err := client.LockOpts(options("first"))
	must(err)
	second, err := client.LockOpts(options("second"))
	must(err)
	lost, err := first.Lock(nil)
	must(err)
	check(lost != nil, "the lock was not taken")
	var held atomic.Bool
	taken := make(chan error, 1)
	go func() {
		_, err := second.Lock(nil)
		held.Store(true)
		taken <- err
	}()
	time.Sleep(300 * time.Millisecond)
	check(!held.Load(), "two hold the lock")
	check(errors.Is(first.Destroy(), api.ErrLockHeld), "a lock was destroyed by its holder")
	must(first.Unlock())
	must(<-taken)
	pair, _, err := client.KV().Get(name, nil)
	must(err)
	check(string(pair.Value) == "second" && pair.Flags == api.LockFlagValue && pair.LockIndex == 2, "pair %+v", pair)

	// The holder is told when its session ends under it.
	_, err = client.Session().Destroy(pair.Session, nil)
	must(err)
	eventually("the key is free", func() bool {
		pair, _, err = client.KV().Get(name, nil)
		must(err)
		return pair.Session == ""
	})
	third, err := client.LockKey(name)
	must(err)
	eventually("the key can be taken after its delay", func() bool {
		stop := make(chan struct{})
		time.AfterFunc(500*time.Millisecond, func() { close(stop) })
		lost, err = third.Lock(stop)
		must(err)
		return lost != nil
	})
	_, err = client.KV().Delete(name, nil)
	must(err)
	select {
	case <-lost:
	case <-time.After(deadline):
		check(false, "the holder was not told that its key is gone")
	}
	third.Unlock()
}

func semaphore() {
	prefix := fresh()
	var holders []*api.Semaphore
	for range 2 {
		s, err := client.SemaphoreOpts(&api.SemaphoreOptions{Prefix: prefix, Limit: 2, SessionTTL: "60s"})
		must(err)
		lost, err := s.Acquire(nil)
		must(err)
		check(lost != nil, "no slot")
		holders = append(holders, s)
	}
	third, err := client.SemaphoreOpts(&api.SemaphoreOptions{Prefix: prefix, Limit: 2, SessionTTL: "60s",
		SemaphoreTryOnce: true, SemaphoreWaitTime: 200 * time.Millisecond})
	must(err)
	lost, err := third.Acquire(nil)
	must(err)
	check(lost == nil, "three hold two slots")
	must(holders[0].Release())
	eventually("a slot is free", func() bool {
		lost, err = third.Acquire(nil)
		must(err)
		return lost != nil
	})
	must(third.Release())
	must(holders[1].Release())
	must(third.Destroy())
}
