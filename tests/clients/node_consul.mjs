// Every call of the npm package `consul` against a running agent.
//
// Arguments: the folder where the package is installed, the agent's HTTP port, its node name. Each case prints a line
// of JSON: its name, and the error where it failed. The last line lists the package's methods that no case has called.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [folder, port, node] = process.argv.slice(2);
const Consul = createRequire(path.join(folder, "package.json"))("consul");
const consul = new Consul({ host: "127.0.0.1", port: Number(port) });
const other = new Consul({ host: "127.0.0.1", port: Number(port) });

const called = new Set();
const known = new Set();

function record(target, prefix) {
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(target))) {
    if (name === "constructor" || name.startsWith("_") || typeof target[name] !== "function") continue;
    const full = prefix + name;
    known.add(full);
    const original = target[name];
    target[name] = function (...args) {
      called.add(full);
      return original.apply(this, args);
    };
  }
}

for (const [name, family] of Object.entries(consul)) {
  if (name.startsWith("_") || !family || !family.consul) continue;
  record(family, name + ".");
  for (const [inner, deeper] of Object.entries(family)) {
    if (inner !== "consul" && deeper && deeper.consul) record(deeper, `${name}.${inner}.`);
  }
}

const unique = () => "n" + Math.random().toString(16).slice(2, 14);
const patience = 120000;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function eventually(what, condition) {
  const deadline = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${patience} ms: ${what}`);
    await pause(30);
  }
}

async function refused(promise, status, pattern) {
  const error = await promise.then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  assert.equal(error.statusCode, status, `${error.statusCode} ${error.message}`);
  assert.match(error.message, pattern);
}

const cases = {
  async status() {
    const leader = await consul.status.leader();
    assert.match(leader, /^127\.0\.0\.1:\d+$/);
    assert.deepEqual(await consul.status.peers(), [leader]);
  },

  async "the agent's own affairs"() {
    const self = await consul.agent.self();
    assert.equal(self.Config.NodeName, node);
    assert.equal(self.Member.Name, node);
    const [member] = await consul.agent.members();
    assert.deepEqual([member.Name, member.Status], [node, 1]);
    assert.equal((await consul.agent.members({ wan: true }))[0].Name, `${node}.dc1`);
    await consul.agent.join(`127.0.0.1:${member.Port}`);
    await refused(consul.agent.forceLeave("nobody"), 500, /No node found with name 'nobody'/);
    await consul.agent.reload();
    await consul.agent.maintenance({ enable: true, reason: "because" });
    assert.equal((await consul.agent.checks())._node_maintenance.Notes, "because");
    await consul.agent.maintenance(false);
    assert.equal((await consul.agent.checks())._node_maintenance, undefined);
  },

  async "services of the agent"() {
    const name = unique();
    await consul.agent.service.register({
      name,
      id: name + "-1",
      tags: ["a"],
      address: "127.0.0.1",
      port: 80,
      meta: { k: "v" },
      check: { ttl: "1h", notes: "told", status: "passing" },
    });
    const service = (await consul.agent.services())[name + "-1"];
    assert.deepEqual([service.Service, service.Port, service.Tags, service.Meta], [name, 80, ["a"], { k: "v" }]);
    assert.deepEqual((await consul.agent.service.list())[name + "-1"], service);
    assert.equal((await consul.agent.checks())[`service:${name}-1`].Status, "passing");
    await consul.agent.service.maintenance({ id: name + "-1", enable: true, reason: "upgrade" });
    assert.equal((await consul.agent.checks())[`_service_maintenance:${name}-1`].Notes, "upgrade");
    await consul.agent.service.maintenance({ id: name + "-1", enable: false });
    await consul.agent.service.register({ name: name + "-h", checks: [{ http: "http://127.0.0.1:1/", interval: "1h" }] });
    await consul.agent.service.deregister(name + "-h");
    await consul.agent.service.deregister(name + "-1");
    assert.equal((await consul.agent.services())[name + "-1"], undefined);
    await refused(consul.agent.service.register({ name: name, port: "eighty" }), 400, /./);
  },

  async "checks of the agent"() {
    const name = unique();
    await consul.agent.check.register({ name, ttl: "1h", notes: "told" });
    for (const [report, status] of [["pass", "passing"], ["warn", "warning"], ["fail", "critical"]]) {
      await consul.agent.check[report]({ id: name, note: "as told" });
      const check = (await consul.agent.check.list())[name];
      assert.deepEqual([check.Status, check.Output, check.Notes], [status, "as told", "told"]);
    }
    await consul.agent.check.deregister(name);
    assert.equal((await consul.agent.checks())[name], undefined);
    await refused(consul.agent.check.register({ name, ttl: "nonsense" }), 400, /./);
  },

  async catalog() {
    const name = unique();
    await consul.catalog.register({
      node: name,
      address: "10.1.1.1",
      service: { service: name, id: name + "-1", port: 80, tags: ["a"] },
      check: { name: "up", checkid: name, serviceid: name + "-1", status: "passing" },
    });
    assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
    assert.ok((await consul.catalog.nodes()).some((row) => row.Node === name && row.Address === "10.1.1.1"));
    assert.ok((await consul.catalog.node.list({ dc: "dc1" })).some((row) => row.Node === name));
    assert.deepEqual((await consul.catalog.services())[name], ["a"]);
    assert.deepEqual((await consul.catalog.service.list())[name], ["a"]);
    assert.equal((await consul.catalog.node.services(name)).Services[name + "-1"].Port, 80);
    assert.equal((await consul.catalog.service.nodes({ service: name, tag: "a" }))[0].ServiceID, name + "-1");
    assert.deepEqual(await consul.catalog.service.nodes({ service: name, tag: "b" }), []);
    assert.deepEqual(await consul.catalog.connect.nodes(name), []);
    await consul.catalog.deregister({ node: name, id: name + "-1" });
    assert.deepEqual(await consul.catalog.service.nodes(name), []);
    await consul.catalog.deregister(name);
    assert.equal(await consul.catalog.node.services(name), undefined);
    await refused(consul.catalog.nodes({ dc: "elsewhere" }), 500, /No path to datacenter/);
  },

  async health() {
    const name = unique();
    for (const status of ["passing", "warning", "critical"]) {
      await consul.catalog.register({
        node: name,
        address: "10.1.1.1",
        service: { service: name, id: status },
        check: { name: "up", checkid: `${name}-${status}`, serviceid: status, status },
      });
    }
    assert.equal((await consul.health.node(name)).length, 3);
    assert.deepEqual((await consul.health.checks(name)).map((row) => row.ServiceID), ["critical", "passing", "warning"]);
    assert.equal((await consul.health.service(name)).length, 3);
    assert.deepEqual((await consul.health.service({ service: name, passing: true })).map((row) => row.Service.ID), ["passing"]);
    assert.ok((await consul.health.state("warning")).some((row) => row.Node === name));
    assert.deepEqual(await consul.health.service({ service: name, filter: "Service.ID == warning and Checks is not empty" })
      .then((rows) => rows.map((row) => row.Service.ID)), ["warning"]);
    await consul.catalog.deregister(name);
  },

  async kv() {
    const name = unique();
    assert.equal(await consul.kv.get(name), undefined);
    assert.equal(await consul.kv.set({ key: `${name}/a`, value: "one", flags: 42 }), true);
    const pair = await consul.kv.get(`${name}/a`);
    assert.deepEqual([pair.Value, pair.Flags], ["one", 42]);
    // The client makes nothing of the `false` that the agent answers.
    assert.notEqual(await consul.kv.set({ key: `${name}/a`, value: "no", cas: pair.ModifyIndex + 9 }), true);
    assert.equal(await consul.kv.set({ key: `${name}/a`, value: "two", cas: String(pair.ModifyIndex) }), true);
    assert.equal(await consul.kv.set(`${name}/b/c`, null), true);
    assert.equal(await consul.kv.set(`${name}/héllo wörld?`, "ünï"), true);
    assert.equal((await consul.kv.get(`${name}/héllo wörld?`)).Value, "ünï");
    assert.deepEqual(await consul.kv.get({ key: `${name}/a`, raw: true }), Buffer.from("two"));
    assert.deepEqual((await consul.kv.get({ key: name, recurse: true })).map((row) => row.Key), await consul.kv.keys(name));
    assert.deepEqual(await consul.kv.keys({ key: `${name}/`, separator: "/" }),
      [`${name}/a`, `${name}/b/`, `${name}/héllo wörld?`]);
    const session = (await consul.session.create({ lockdelay: "0s" })).ID;
    assert.equal(await consul.kv.set({ key: `${name}/lock`, value: "", acquire: session }), true);
    assert.equal(await consul.kv.set({ key: `${name}/lock`, value: "", release: session }), true);
    await consul.session.destroy(session);
    assert.notEqual(await consul.kv.del({ key: `${name}/a`, cas: 1 }), true);
    assert.equal(await consul.kv.delete(`${name}/a`), true);
    assert.equal(await consul.kv.del({ key: name, recurse: true }), true);
    assert.equal(await consul.kv.get({ key: name, recurse: true }), undefined);
    await refused(consul.kv.set(name, "x".repeat(512 * 1024 + 1)), 413, /./);
  },

  async sessions() {
    const name = unique();
    const { ID: id } = await consul.session.create({ name, ttl: "60s", behavior: "delete", lockdelay: "3s" });
    const session = await consul.session.info(id);
    assert.deepEqual([session.Name, session.Node, session.TTL, session.Behavior, session.LockDelay],
      [name, node, "60s", "delete", 3e9]);
    assert.deepEqual(await consul.session.get(id), session);
    assert.ok((await consul.session.list()).some((row) => row.ID === id));
    assert.ok((await consul.session.node(node)).some((row) => row.ID === id));
    assert.equal((await consul.session.renew(id))[0].ID, id);
    await consul.session.destroy(id);
    assert.equal(await consul.session.info(id), undefined);
    await refused(consul.session.create({ ttl: "nonsense" }), 500, /invalid/i);
  },

  async events() {
    const name = unique();
    const { ID: id } = await consul.event.fire({ name, payload: "the payload", node: "^" + node + "$" });
    const [event] = await eventually("the event arrives", async () => {
      const rows = await consul.event.list(name);
      return rows.length && rows;
    });
    assert.deepEqual([event.ID, event.Payload], [id, "the payload"]);
    await consul.event.fire(name, Buffer.from([0, 255]));
    const found = await eventually("both are there", async () => {
      const rows = await consul.event.list({ name, buffer: true });
      return rows.length === 2 && rows;
    });
    assert.deepEqual(found[1].Payload, Buffer.from([0, 255]));
  },

  async "prepared queries"() {
    const name = unique();
    await consul.catalog.register({ node: name, address: "10.1.1.1", service: { service: name, port: 81 } });
    const { ID: query } = await consul.query.create({ name: name + "-q", service: { service: name }, dns: { ttl: "5s" } });
    assert.ok((await consul.query.list()).some((row) => row.ID === query));
    assert.equal((await consul.query.get(query)).Name, name + "-q");
    assert.equal((await consul.query.execute(name + "-q")).Nodes[0].Service.Port, 81);
    // The client looks for a list in the explanation, which is an object, and so gives nothing.
    assert.equal(await consul.query.explain(name + "-q"), undefined);
    await consul.query.update({ query, name: name + "-r", service: { service: name, onlypassing: true } });
    assert.equal((await consul.query.get(query)).Service.OnlyPassing, true);
    await consul.query.destroy(query);
    await refused(consul.query.get(query), 404, /./);
    await consul.catalog.deregister(name);
  },

  async transactions() {
    const name = unique();
    const done = await consul.transaction.create([
      { KV: { Verb: "set", Key: `${name}/1`, Value: Buffer.from("one").toString("base64") } },
      { KV: { Verb: "get", Key: `${name}/1` } },
    ]);
    assert.equal(done.Results[1].KV.Key, `${name}/1`);
    await refused(consul.transaction.create([{ KV: { Verb: "check-not-exists", Key: `${name}/1` } }]), 409, /./);
    await consul.kv.del({ key: name, recurse: true });
  },

  async "watches end, follow changes, and give up on a bad request"() {
    const name = unique();
    const seen = [];
    const watch = consul.watch({ method: consul.kv.get, options: { key: name, wait: "5m" }, backoffFactor: 100 });
    watch.on("change", (data) => seen.push(data && data.Value));
    const failures = [];
    watch.on("error", (error) => failures.push(error.message));
    await eventually("the first answer", () => seen.length === 1);
    for (const value of ["1", "2", "3"]) {
      await other.kv.set(name, value);
      await eventually(`the change to ${value}`, () => seen.at(-1) === value);
    }
    assert.equal(watch.isRunning(), true);
    assert.ok(watch.updateTime() > 0);
    watch.end();
    assert.equal(watch.isRunning(), false);
    assert.deepEqual(failures, []);
    assert.deepEqual(seen, [undefined, "1", "2", "3"]);
    await consul.kv.del(name);

    const services = consul.watch({ method: consul.health.service, options: { service: name, wait: "5m" } });
    let rows;
    services.on("change", (data) => (rows = data));
    services.on("error", (error) => failures.push(error.message));
    await eventually("no instance yet", () => rows && rows.length === 0);
    await other.catalog.register({ node: name, address: "10.1.1.1", service: { service: name } });
    await eventually("the instance", () => rows.length === 1);
    await other.catalog.deregister(name);
    await eventually("none any more", () => rows.length === 0);
    services.end();

    const bad = consul.watch({ method: consul.kv.get, options: { key: name, wait: "sometime", index: "5" } });
    const error = await new Promise((resolve) => bad.on("error", resolve));
    assert.match(error.message, /Invalid wait time/);
    await eventually("the watch gives up", () => !bad.isRunning());
    assert.deepEqual(failures, []);
  },

  async "ACLs are refused while they are disabled"() {
    await refused(consul.acl.bootstrap(), 401, /ACL support disabled/);
    await refused(consul.acl.replication(), 401, /ACL support disabled/).catch(async (error) => {
      // The replication status is told without ACLs, too, by some versions.
      if (!/was not refused/.test(error.message)) throw error;
      assert.equal((await consul.acl.replication()).Enabled, false);
    });
  },
};

for (const [name, run] of Object.entries(cases)) {
  let error = null;
  try {
    await run();
  } catch (caught) {
    error = caught.stack || String(caught);
  }
  console.log(JSON.stringify({ name, error }));
}
// The calls of the ACL system before 1.4 exist in the package, but nowhere else any more.
const missed = [...known].filter((method) => !called.has(method) && !method.startsWith("acl.legacy."));
console.log(JSON.stringify({ name: "every call is made", error: missed.join(", ") || null }));
consul.destroy();
other.destroy();
process.exit(0);
