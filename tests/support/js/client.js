// Child process: autobahn-js as the client of the scenarios, see ../clients.py.
"use strict";

process.removeAllListeners("warning");
process.on("warning", () => {}); // the library's RawSocket transport still says "new Buffer"
console.log = console.error; // only answers go to standard output

const WebSocket = require("ws");
const sockets = []; // the library keeps its own from us
let deflate = null; // what the next connection offers
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { perMessageDeflate: deflate || true });
    sockets.push(this);
  }
};
require("./xhr.js");
const autobahn = require("autobahn");
const readline = require("readline");

const STEP = 20000;
const SERIALIZERS = {
  json: () => new autobahn.serializer.JSONSerializer(),
  msgpack: () => new autobahn.serializer.MsgpackSerializer(),
  cbor: () => new autobahn.serializer.CBORSerializer(),
};

function deadline(promise, what, limit = STEP) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("not within " + limit + " ms: " + what)), limit);
  });
  return Promise.race([Promise.resolve(promise), late]).finally(() => clearTimeout(timer));
}

async function until(condition, what) {
  const end = Date.now() + STEP;
  while (!condition()) {
    if (Date.now() > end) throw new Error("not within " + STEP + " ms: " + what);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

// Parameters of permessage-deflate as the library wants them; every message is worth compressing.
function deflateOptions({ no_context, bits }) {
  const options = { threshold: 0, serverNoContextTakeover: no_context, clientNoContextTakeover: no_context };
  return bits ? { ...options, serverMaxWindowBits: bits, clientMaxWindowBits: bits } : options;
}

function connect(job) {
  const endpoint = job.endpoint;
  const transport = { type: endpoint.kind };
  const protocol = "wamp.2." + job.serializer + (job.batched ? ".batched" : "");
  deflate = job.deflate && deflateOptions(job.deflate);
  if (endpoint.kind === "websocket") {
    transport.url = endpoint.url;
    transport.serializers = [SERIALIZERS[job.serializer]()];
    transport.protocols = [protocol];
  } else if (endpoint.kind === "longpoll") {
    transport.url = endpoint.url; // it speaks JSON only
  } else {
    transport.serializers = [SERIALIZERS[job.serializer]()];
    transport.protocols = [protocol];
    if (endpoint.path) transport.path = endpoint.path;
    else Object.assign(transport, { host: endpoint.host, port: endpoint.port });
  }
  const connection = new autobahn.Connection({
    realm: job.realm,
    transports: [transport],
    max_retries: 0,
    retry_if_unreachable: false,
  });
  const opened = new Promise((resolve, reject) => {
    connection.onopen = (session) => {
      const spoken = connection.transport.info.protocol;
      const extensions = endpoint.kind === "websocket" ? sockets.pop().extensions : "";
      if (spoken !== protocol) reject(new Error("asked for " + protocol + ", the library speaks " + spoken));
      else if (Boolean(extensions) !== Boolean(job.deflate)) {
        reject(new Error("asked for compression " + JSON.stringify(job.deflate) + ", the server speaks " + extensions));
      } else return resolve({ connection, session });
      connection.close();
    };
    connection.onclose = (reason, details) => {
      reject(new Error("closed: " + reason + " " + JSON.stringify(details)));
      if (connection.ended) connection.ended();
      return true;
    };
  });
  connection.open();
  return deadline(opened, "WELCOME");
}

async function leave(client) {
  if (!client.session.isOpen) return;
  const ended = new Promise((resolve) => { client.connection.ended = resolve; });
  client.connection.close();
  await deadline(ended, "GOODBYE");
}

class Scenarios {
  constructor(prefix, [a, b, c]) {
    Object.assign(this, { prefix, a: a.session, b: b.session, c: c.session });
  }

  async refusal(procedure) {
    try {
      return "no error: " + JSON.stringify(await this.a.call(procedure, [2, 3]));
    } catch (error) {
      return error.error || String(error);
    }
  }

  async rpc() {
    const add = await this.b.register(this.prefix + "add", ([x, y]) => x + y);
    await this.b.register(this.prefix + "echo", (args, kwargs) => new autobahn.Result(args, kwargs));
    const values = [null, true, -1, 1.5, 9007199254740991, "åß∂ƒ", [1, [2]], { k: { v: [] } }];
    const seen = { add: await this.a.call(this.prefix + "add", [2, 3]) };
    const echoed = await this.a.call(this.prefix + "echo", values, { a: 1, b: [2, 3] });
    seen.echo = [echoed.args, echoed.kwargs];
    seen.unknown = await this.refusal(this.prefix + "unknown");
    await add.unregister();
    seen.unregistered = await this.refusal(this.prefix + "add");
    return seen;
  }

  async collect(session, topic) {
    const events = [];
    const subscription = await session.subscribe(topic, (args, kwargs) => { events.push([args || [], kwargs || {}]); });
    return [events, subscription];
  }

  async pubsub({ events }) {
    const topic = this.prefix + "topic";
    const [seenB, subscription] = await this.collect(this.b, topic);
    const [seenC] = await this.collect(this.c, topic);
    for (let i = 0; i < events; i++) await this.a.publish(topic, [i], { n: i }, { acknowledge: true });
    await until(() => seenB.length === events && seenC.length === events, "all events");
    await subscription.unsubscribe();
    const before = seenB.splice(0);
    await this.a.publish(topic, ["late"], {}, { acknowledge: true });
    await until(() => seenC.length === events + 1, "the late event");
    return { events: before.map(([a, k]) => [a[0], k]), also: seenC.length - 1, after_unsubscribe: seenB };
  }

  async failing() {
    const registration = await this.b.register(this.prefix + "fail", () => {
      throw new autobahn.Error("com.example.error.failed", ["because", 7], { why: "reasons", code: 9 });
    });
    try {
      await this.a.call(this.prefix + "fail");
    } catch (error) {
      await registration.unregister();
      return error;
    }
    throw new Error("the call did not fail");
  }

  async errors() {
    const error = await this.failing();
    return { uri: error.error, args: error.args };
  }

  async error_kwargs() {
    const error = await this.failing();
    return { uri: error.error, kwargs: error.kwargs };
  }

  async progressive({ steps }) {
    await this.b.register(this.prefix + "work", async (args, kwargs, details) => {
      for (let i = 0; i < steps; i++) {
        details.progress([i]);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return "done";
    });
    const progress = [];
    const call = this.a.call(this.prefix + "work", [], {}, { receive_progress: true });
    const result = await new Promise((resolve, reject) => call.then(resolve, reject, (value) => progress.push(value)));
    return { progress, result };
  }

  async cancel() {
    let started;
    const running = new Promise((resolve) => { started = resolve; });
    await this.b.register(this.prefix + "sleeper", () => { started(); return new Promise(() => {}); });
    await this.b.register(this.prefix + "still", ([x, y]) => x + y);
    const call = this.a.call(this.prefix + "sleeper");
    const ended = call.then(() => "no error", (error) => error.error || String(error));
    await deadline(running, "the invocation");
    call.cancel({ mode: "kill" });
    const uri = await deadline(ended, "the ERROR for the CANCEL");
    return { uri, interrupted: true, still_works: await this.a.call(this.prefix + "still", [2, 3]) };
  }

  async exclude_eligible() {
    const topic = this.prefix + "listed";
    const lists = [];
    for (const session of [this.b, this.c, this.a]) lists.push((await this.collect(session, topic))[0]);
    const base = { acknowledge: true, exclude_me: false };
    await this.a.publish(topic, ["all-but-one"], {}, { ...base, exclude: [this.b.id] });
    await this.a.publish(topic, ["only"], {}, { ...base, eligible: [this.c.id] });
    await this.a.publish(topic, ["end"], {}, base);
    await until(() => lists.every((l) => l.length && l[l.length - 1][0][0] === "end"), "the last event");
    const [excluded, chosen, other] = lists.map((l) => l.map(([args]) => args[0]));
    return { excluded, chosen, other };
  }

  async shared({ calls }) {
    await this.b.register(this.prefix + "shared", () => 0, { invoke: "roundrobin" });
    await this.c.register(this.prefix + "shared", () => 1, { invoke: "roundrobin" });
    const answers = [];
    for (let i = 0; i < calls; i++) answers.push(await this.a.call(this.prefix + "shared"));
    return { answers: answers.sort() };
  }

  async payload({ octets }) {
    const text = "0123456789abcdef".repeat(octets / 16);
    await this.b.register(this.prefix + "same", ([value]) => value);
    let arrived;
    const event = new Promise((resolve) => { arrived = resolve; });
    await this.b.subscribe(this.prefix + "big", ([value]) => arrived(value));
    const called = (await this.a.call(this.prefix + "same", [text])) === text;
    await this.a.publish(this.prefix + "big", [text], {}, { acknowledge: true });
    return { called, event: (await deadline(event, "the event")) === text };
  }

  async inflight({ calls }) {
    await this.b.register(this.prefix + "one", ([value]) => value);
    const pending = [];
    for (let i = 0; i < calls; i++) pending.push(this.a.call(this.prefix + "one", [i]));
    const answers = await Promise.all(pending);
    return { answers: answers.every((value, i) => value === i) };
  }
}

async function run(job) {
  const results = {};
  const clients = [];
  try {
    for (let i = 0; i < 3; i++) clients.push(await connect(job));
  } catch (error) {
    for (const name of Object.keys(job.scenarios)) results[name] = { error: String(error.stack || error) };
  }
  if (clients.length === 3) {
    const scenarios = new Scenarios(job.prefix, clients);
    for (const [name, parameters] of Object.entries(job.scenarios)) {
      try {
        results[name] = { observed: await deadline(scenarios[name](parameters), name, job.step * 1000) };
      } catch (error) {
        results[name] = { error: String((error && (error.stack || error.error)) || JSON.stringify(error)) };
      }
    }
  }
  for (const client of clients) {
    try {
      await leave(client);
    } catch (error) {
      results.leave = { error: String(error.stack || error) };
    }
  }
  return results;
}

process.stdout.write("ready\n");
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    process.stdout.write(JSON.stringify({ id: job.id, results: await run(job) }) + "\n");
  }
  process.exit(0);
})();
