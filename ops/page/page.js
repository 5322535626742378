/* The console's page: shows the state of a stack and what becomes of its events. */
export const $ = (id) => document.getElementById(id);
export const number = (n) => n.toLocaleString("en");
const age = (seconds) => (seconds < 100 ? `${seconds.toFixed(1)} s` : `${number(Math.round(seconds / 60))} min`);
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

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
    verdict("bad", "The console does not respond. It has stopped or is stopping.");
    wait = 2000;
  }
  setTimeout(poll, wait);
}

function verdict(kind, text) {
  $("verdict").className = kind;
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
}

function render(state) {
  document.dispatchEvent(new CustomEvent("state", { detail: state }));
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
