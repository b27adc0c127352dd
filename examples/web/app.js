"use strict";

const REALM = "realm1";
const TOPIC = "com.example.chat";
const WAYS = {
  websocket: { type: "websocket", url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws` },
  longpoll: { type: "longpoll", url: `${location.origin}/lp` },
};
const NAMES = { websocket: "WebSocket", longpoll: "long-poll" };
const MESSAGES_MAX = 100;
const sessions = {};

const find = (selector) => document.querySelector(selector);

function show(way, name, value) {
  const list = find(`#${way} dl`);
  let shown = list.querySelector(`[data-name="${name}"]`);
  if (!shown) {
    const term = document.createElement("dt");
    term.textContent = name;
    shown = document.createElement("dd");
    shown.dataset.name = name;
    list.append(term, shown);
  }
  shown.textContent = value;
}

function setState(way, state) {
  find(`#${way}`).className = `panel ${state}`;
  find(`#${way} .state`).textContent = state;
  find(`button[value="${way}"]`).disabled = state !== "open";
}

function complain(text) {
  const trouble = find("#trouble");
  trouble.textContent = text;
  trouble.hidden = false;
}

function tell(way, text, details) {
  const item = document.createElement("li");
  const note = document.createElement("span");
  note.textContent = ` heard by ${NAMES[way]}, from session ${details.publisher || "unknown"}`;
  item.append(text, note);
  const log = find("#log");
  log.prepend(item);
  if (log.children.length > MESSAGES_MAX) log.lastChild.remove();
}

async function joined(way, session, details) {
  show(way, "session", session.id);
  show(way, "realm", details.realm || REALM);
  show(way, "role", details.authrole);
  show(way, "logged in by", details.authmethod);
  show(way, "protocol", details.transport.protocol);
  await session.subscribe(TOPIC, ([text], _, event) => tell(way, text, event));
  // Whoever opens this page twice has four sessions, and each needs a name of its own.
  await session.register(`com.example.add2.${session.id}`, ([a, b]) => a + b);
  sessions[way] = session;
  setState(way, "open");
  await together();
}

// Once both are there, each asks the other to add, and says something.
async function together() {
  const ways = Object.keys(WAYS);
  if (!ways.every((way) => sessions[way])) return;
  for (const [way, other] of [ways, [...ways].reverse()]) {
    const start = performance.now();
    const sum = await sessions[way].call(`com.example.add2.${sessions[other].id}`, [2, 3]);
    const took = Math.round(performance.now() - start);
    show(way, "2 + 3", `${sum}, says the session on ${NAMES[other]} (${took} ms)`);
    await sessions[way].publish(TOPIC, [`Hello from ${NAMES[way]}`], {}, { acknowledge: true, exclude_me: false });
  }
  document.body.dataset.state = "ready";
}

function connect(way) {
  const connection = new autobahn.Connection({ realm: REALM, transports: [WAYS[way]] });
  connection.onopen = (session, details) => {
    joined(way, session, details).catch((error) => complain(`${NAMES[way]}: ${error.error || error}`));
  };
  connection.onclose = (reason, details) => {
    delete sessions[way];
    setState(way, "closed");
    if (reason !== "closed") complain(`${NAMES[way]}: ${details.reason || reason} ${details.message || ""}`);
    return false; // it tries again by itself
  };
  connection.open();
}

find("#say").addEventListener("submit", (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  const session = sessions[event.submitter.value];
  if (session && text.value) session.publish(TOPIC, [text.value], {}, { exclude_me: false });
  text.value = "";
});

if (typeof autobahn === "undefined") {
  Object.keys(WAYS).forEach((way) => setState(way, "closed"));
  complain("AutobahnJS is missing: run “npm install --no-save --prefix examples/web autobahn-browser” and reload this page.");
} else {
  Object.keys(WAYS).forEach(connect);
}
