// Child process: autobahn-js as a client that logs in, see ../logins.py.
"use strict";

process.removeAllListeners("warning");
process.on("warning", () => {}); // the library's RawSocket transport still says "new Buffer"
console.log = console.error; // only answers go to standard output

const WebSocket = require("ws");
let cookie = null; // what the next connection sends
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, cookie === null ? {} : { headers: { Cookie: cookie } });
  }
};
const autobahn = require("autobahn");
const nacl = require("tweetnacl");
const readline = require("readline");

const STEP = 20000;
const SERIALIZERS = {
  json: () => new autobahn.serializer.JSONSerializer(),
  msgpack: () => new autobahn.serializer.MsgpackSerializer(),
  cbor: () => new autobahn.serializer.CBORSerializer(),
};

function deadline(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("not within " + STEP + " ms: " + what)), STEP);
  });
  return Promise.race([Promise.resolve(promise), late]).finally(() => clearTimeout(timer));
}

function signature(job, key, extra) {
  if (job.method === "ticket") return job.secret;
  if (job.method === "cryptosign") return autobahn.auth_cryptosign.sign_challenge(key, extra);
  const { salt, keylen, iterations } = extra;
  const secret = salt ? autobahn.auth_cra.derive_key(job.secret, salt, iterations, keylen) : job.secret;
  return autobahn.auth_cra.sign(secret, extra.challenge);
}

function connect(job) {
  const { endpoint } = job;
  const transport = { type: endpoint.kind, serializers: [SERIALIZERS[job.serializer]()] };
  transport.protocols = ["wamp.2." + job.serializer];
  if (endpoint.kind === "websocket") transport.url = endpoint.url;
  else Object.assign(transport, { host: endpoint.host, port: endpoint.port });
  cookie = job.cookie;
  const options = { realm: job.realm, transports: [transport], max_retries: 0, retry_if_unreachable: false };
  let key = null;
  options.authmethods = [job.cookie === null ? job.method : "cookie"];
  if (job.authid) options.authid = job.authid;
  if (job.method === "cryptosign") {
    key = nacl.sign.keyPair.fromSeed(Buffer.from(job.secret, "hex"));
    options.authextra = { pubkey: autobahn.auth_cryptosign.public_key(key) };
  }
  options.onchallenge = (session, method, extra) => {
    if (method !== job.method) throw new Error("CHALLENGE for " + method);
    return signature(job, key, extra);
  };
  const connection = new autobahn.Connection(options);
  return new Promise((resolve) => {
    connection.onopen = (session, details) => resolve({ connection, session, details });
    connection.onclose = (reason, details) => {
      // Of a session that was refused the reason is "closed", too; the details say whether ABORT was the cause.
      resolve({ refused: details.reason, message: details.message });
      if (connection.ended) connection.ended();
      return true;
    };
    connection.open();
  });
}

async function run(job) {
  const { connection, session, details, refused, message } = await deadline(connect(job), "WELCOME");
  if (!session) return { refused, message };
  const { realm, authid, authrole, authmethod, authprovider, authextra } = details;
  const answer = { joined: { session: session.id, realm, authid, authrole, authmethod, authprovider, authextra } };
  answer.sum = await deadline(session.call("com.example.sum", [2, 3]), "RESULT");
  answer.router = await deadline(session.call("wamp.session.get", [session.id]), "RESULT");
  const ended = new Promise((resolve) => { connection.ended = resolve; });
  connection.close();
  await deadline(ended, "GOODBYE");
  return answer;
}

process.stdout.write("ready\n");
(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const answer = await run(job).catch((error) => ({ error: String((error && error.stack) || error) }));
    process.stdout.write(JSON.stringify({ id: job.id, ...answer }) + "\n");
  }
  process.exit(0);
})();
