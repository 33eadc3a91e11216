// The Go client of Consul's API, the one that most of the tools around Consul are built on, against a running agent.
//
// Arguments: the agent's HTTP address, its node name. Prints a line of JSON for each case: its name, and the error
// where it failed.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const deadline = 2 * time.Minute

var (
	client *api.Client
	addr   string
	node   string
	number int
)

// fresh gives a name that no other case uses.
func fresh() string {
	number++
	return fmt.Sprintf("go%d-%d", time.Now().UnixNano(), number)
}

// must stops the case with an error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// check stops the case unless what it expects holds.
func check(holds bool, format string, values ...any) {
	if !holds {
		panic(fmt.Errorf(format, values...))
	}
}

// refused stops the case unless the error is an answer with this status and words.
func refused(err error, status int, words string) {
	var answer api.StatusError
	check(errors.As(err, &answer), "expected status %d, got %v", status, err)
	check(answer.Code == status && strings.Contains(answer.Body, words), "expected %d %q, got %v", status, words, err)
}

// eventually waits until a condition holds.
func eventually(what string, condition func() bool) {
	until := time.Now().Add(deadline)
	for !condition() {
		check(time.Now().Before(until), "not within %v: %s", deadline, what)
		time.Sleep(20 * time.Millisecond)
	}
}

func main() {
	addr, node = os.Args[1], os.Args[2]
	var err error
	client, err = api.NewClient(&api.Config{Address: addr})
	must(err)
	cases := []struct {
		name string
		run  func()
	}{
		{"status", status}, {"agent", agent}, {"service and sidecar", serviceAndSidecar}, {"checks", checks},
		{"catalog and health", catalogAndHealth}, {"kv", kv}, {"transactions", transactions},
		{"sessions", sessions}, {"lock", lock}, {"semaphore", semaphore}, {"watches", watches},
		{"events", events}, {"prepared queries", preparedQueries}, {"config entries", configEntries},
		{"coordinates", coordinates}, {"operator", operator}, {"snapshot", snapshot}, {"raw", raw},
		{"monitor and metrics", monitorAndMetrics}, {"query options", queryOptions}, {"refusals", refusals},
	}
	out := json.NewEncoder(os.Stdout)
	for _, c := range cases {
		out.Encode(map[string]any{"name": c.name, "error": attempt(c.run)})
	}
}

// attempt runs a case. Gives nil, or what went wrong.
func attempt(run func()) any {
	ended := make(chan any, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				ended <- fmt.Sprint(r)
			}
		}()
		run()
		ended <- nil
	}()
	select {
	case failure := <-ended:
		return failure
	case <-time.After(2 * deadline):
		return fmt.Sprintf("not ended within %v", 2*deadline)
	}
}
