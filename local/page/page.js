/* The page of the local stack: sends events like a web site, and shows what happens to them. */
"use strict";
const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en");
const age = (seconds) => (seconds < 100 ? `${seconds.toFixed(1)} s` : `${number(Math.round(seconds / 60))} min`);
const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/* --- send events --- */

const ACCOUNTS = ["shop", "outlet", "news", "app"];
const SENDS = {
  "View a page": ["pixel, <img>", (key) => collect.pixel(key, "pageviews", { page: "/", ...collect.page() })],
  "Add to cart": ["JSON, fetch", (key) => collect.send(key, collect.event("carts", { sku: "tea-03", price: 1350, tags: ["green"] }))],
  "Leave": ["text, beacon", (key) => collect.beacon(key, collect.event("engagement", { seconds: Math.round(performance.now() / 100) / 10 }))],
  "Sync offline": ["100 events, gzip", (key) => collect.send(key, Array.from({ length: 100 }, (_, n) => collect.event("notes", { n })), { zip: true })],
};

let account = ACCOUNTS[0];
for (const name of ACCOUNTS) {
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "account", value: name, checked: name === account });
  input.onchange = () => { account = name; };
  $("accounts").append(element("label", "", input, element("span", "", name)));
}
for (const [name, [how, send]] of Object.entries(SENDS)) {
  const button = element("button", "", name, element("small", "", how));
  button.type = "button";
  button.onclick = async () => show(`${account}: ${name.toLowerCase()}`, await send(SLUICE.keys[account]));
  $("sends").append(button);
}
for (const name of Object.keys(mistakes)) $("mistake").append(new Option(name));
$("make-mistake").onclick = async () => {
  const name = $("mistake").value;
  show(name, await mistakes[name]());
};

function show(name, { status, text }) {
  $("answers").querySelector(".empty")?.remove();
  const kind = status === undefined ? "" : status < 300 ? "ok" : "no";
  const item = element("li", kind, element("span", "status", status ?? "–"), element("span", "what", name, element("small", "", text)));
  item.title = text;
  $("answers").prepend(item);
  while ($("answers").children.length > 6) $("answers").lastChild.remove();
}

let due;
$("visitors").oninput = () => {
  const rate = Number($("visitors").value);
  $("visitors-value").textContent = rate ? `${rate} per second` : "none";
  clearInterval(due);
  if (rate) due = setInterval(visit, 1000 / rate);
};

function visit() {
  const who = ACCOUNTS[Math.floor(Math.random() * ACCOUNTS.length)];
  const sends = Object.values(SENDS);
  sends[Math.floor(Math.random() * (sends.length - 1))][1](SLUICE.keys[who]);
}

/* --- show what happens to them --- */

const ROWS = 24;
let after = 0;
let first = true;
const known = new Map();

async function poll() {
  let wait = 700;
  try {
    const answer = await fetch(`state.json?after=${after}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status}`);
    render(await answer.json());
  } catch {
    verdict("bad", "The local stack does not respond. It has stopped or is stopping.");
    wait = 2000;
  }
  setTimeout(poll, wait);
}

function verdict(kind, text) {
  $("verdict").className = kind;
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
}

function render(state) {
  renderParts(state);
  if (state.error) return verdict("bad", `A part of the stack is down (${state.error}). It is started again.`);
  for (const name of ["accepted", "in-flight", "delivered", "aside"]) {
    const value = state[name.replace("-", "_")];
    $(name).textContent = number(value);
    $(name).classList.toggle("some", value > 0);
  }
  const [worst, ...others] = state.verdicts;
  verdict({ healthy: state.in_flight ? "busy" : "good", attention: "bad" }[worst.health] ?? "busy", worst.line);
  $("others").replaceChildren(...others.map((other) => element("li", "", other.line)));
  renderPairs($("refused"), Object.entries(state.refused).map(([code, count]) => [code, count]));
  $("refused-none").hidden = Object.keys(state.refused).length > 0;
  renderShards(state.shards);
  renderPairs($("ledger"), [["spans settled", state.spans.done], ["spans open", state.spans.open]]);
  renderAside(state.aside_chunks);
  $("queue").textContent = state.queue ? plural(state.queue, "envelope waiting", "envelopes waiting") : "empty";
  renderTables(state.tables);
  renderRows(state.latest);
  if (first) renderAddresses(state.addresses);
  first = false;
}

const BREAKS = {
  "td": "Treasure Data", "td:shop": "Database shop", "answers": "TD's answers", "redis": "Valkey", "kinesis": "Stream", "worker": "Worker",
};
for (const [target, name] of Object.entries(BREAKS)) {
  const button = element("button", "", name);
  button.type = "button";
  button.dataset.target = target;
  button.onclick = () => fetch("break", {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ target, seconds: button.ariaPressed === "true" ? 0 : Number($("break-seconds").value) }),
  });
  $("breaks").append(button);
}

function renderParts({ parts, outages }) {
  for (const button of $("breaks").children) {
    const left = outages[button.dataset.target];
    button.ariaPressed = left ? "true" : "false";
    button.textContent = BREAKS[button.dataset.target] + (left ? ` (${Math.ceil(left)} s)` : "");
  }
  const said = parts.filter((part) => !part.running || part.restarts).map((part) => {
    const state = part.paused ? "broken on purpose" : part.running ? "running again" : "down";
    return element("li", "", `${part.name}: ${state}${part.restarts ? `, started again ${plural(part.restarts, "time")}, ended ${part.ended}` : ""}`);
  });
  $("parts").replaceChildren(...(said.length ? said : [element("li", "quiet", "all parts are running")]));
}

function renderShards(shards) {
  const most = Math.max(50, ...shards.map((shard) => shard.waiting));
  $("shards").replaceChildren(...shards.map((shard) => {
    const fill = element("i");
    fill.style.width = `${(100 * shard.waiting) / most}%`;
    const waits = shard.waiting ? `${number(shard.waiting)} waiting, ${age(shard.oldest_seconds)}` : "nothing waiting";
    return element("div", "shard",
      element("p", "", `shard ${Number(shard.id.split("-")[1])}`, element("span", shard.waiting ? "" : "quiet", waits)),
      element("div", "bar", fill),
      element("small", "", `${plural(shard.records, "record")}, ${plural(shard.rows, "row")} so far`));
  }));
}

function renderPairs(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", number(value))]));
}

function renderAside(chunks) {
  if (!chunks.length) return $("aside-list").replaceChildren(element("p", "quiet", "nothing"));
  const list = element("dl");
  for (const chunk of chunks) list.append(element("dt", "", chunk.what, element("small", "", `${chunk.kind}: ${chunk.reason}`)), element("dd", "", number(chunk.rows)));
  $("aside-list").replaceChildren(list);
}

function renderTables(tables) {
  if (!tables.length) return $("tables").replaceChildren(element("p", "quiet", "No tables yet. The worker creates them when needed."));
  for (const { database, table, rows } of tables) {
    const name = `${database}.${table}`;
    let card = known.get(name);
    if (!card) {
      if (!known.size) $("tables").replaceChildren();
      card = { node: element("div", "table", element("span", "", name), element("b")), rows: 0 };
      known.set(name, card);
      const next = [...known.keys()].sort().find((other) => other > name);
      $("tables").insertBefore(card.node, next ? known.get(next).node : null);
    }
    if (card.rows !== rows) {
      card.node.lastChild.textContent = number(rows);
      if (!first) flash(card.node);
      card.rows = rows;
    }
  }
}

function renderRows(rows) {
  if (!rows.length) return;
  $("rows").querySelector(".empty")?.remove();
  const shown = rows.slice(0, ROWS).reverse();
  for (const row of shown) {
    const item = rowItem(row);
    $("rows").prepend(item);
    if (!first) flash(item);
  }
  after = Math.max(after, ...rows.map((row) => row.number));
  while ($("rows").children.length > ROWS) $("rows").lastChild.remove();
}

const PLUMBING = new Set(["time", "event_id", "received_at", "td_client_id", "td_ip", "td_user_agent"]);

function rowItem({ database, table, at, row }) {
  const what = element("span", "what");
  const names = Object.keys(row).filter((name) => !PLUMBING.has(name));
  for (const name of names.length ? names : Object.keys(row)) what.append(element("span", "", element("i", "", name), `${row[name]}`.slice(0, 80)));
  const summary = element("summary", "", element("time", "", new Date(at * 1000).toLocaleTimeString("en-GB")), element("span", "where", `${database}.${table}`), what);
  const details = element("details", "", summary);
  details.ontoggle = () => { if (details.open && !details.querySelector("pre")) details.append(element("pre", "", JSON.stringify(row, null, 2))); };
  return element("li", "", details);
}

function flash(node) {
  node.classList.add("new");
  requestAnimationFrame(() => requestAnimationFrame(() => node.classList.remove("new")));
}

function renderAddresses(addresses) {
  $("addresses").replaceChildren(...Object.entries(addresses).map(([name, address]) => element("span", "", `${name} `, element("code", "", address))));
}

poll();
