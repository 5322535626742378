/* The console's page: shows the state of a stack and its events, and asks before it changes anything. */
export const $ = (id) => document.getElementById(id);
export const number = (n) => n.toLocaleString("en");
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

const STATE_MS = 1000;
const EVENTS_MS = 1000;
const RETRY_MS = 3000;
const KEPT = 1000; // events in memory
const SHOWN = 60; // of them on the page
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/* --- talk to the console --- */

// The token follows the # in the address, so browsers never send it. It is then removed from the address bar.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}

export async function ask(path, document) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };
  const options = { cache: "no-store", headers };
  if (document) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(document) });
  }
  const answer = await fetch(path, options);
  const content = await answer.json().catch(() => ({ error: "The console has failed: see its terminal" }));
  if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
  return content;
}

let paused = false;
$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("stale").textContent = paused ? "Paused. Events that arrive in the meantime are shown when you resume." : "";
};

async function repeat(milliseconds, work) {
  for (;;) {
    let pause = milliseconds;
    if (!paused && !document.hidden) {
      try {
        await work();
      } catch (error) {
        pause = RETRY_MS;
        const said = error.status ? `${error.message}.` : "The console does not respond. It may have been stopped.";
        verdict("bad", said[0].toUpperCase() + said.slice(1));
      }
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

/* --- the state --- */

let state;

/* Show the state. Ages and counts change constantly, so screen readers hear only changes of the state itself. */
function verdict(kind, text, state = text) {
  $("verdict").className = kind;
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
  if ($("announcement").dataset.state === state) return;
  $("announcement").dataset.state = state;
  $("announcement").textContent = text;
}

function render(found) {
  state = found;
  document.dispatchEvent(new CustomEvent("state", { detail: state }));
  const { name, region } = state.stack;
  $("stack").textContent = region ? `${name} in ${region}` : `${name} stack`;
  document.title = `Sluice: ${name}`;
  renderLook(state.look);
  renderCounts(state.counts);
  renderAccounts(state.accounts);
  renderActions(state.actions ?? []);
  renderPairs($("refused"), Object.entries(state.refused ?? {}));
  $("refused-part").hidden = !Object.keys(state.refused ?? {}).length;
  renderAddresses(state.addresses ?? {});
}

function renderLook(look) {
  if (look.error) verdict("bad", `UNKNOWN: ${look.error}.`);
  else if (!look.known) verdict("busy", "Loading …");
  else {
    const [worst, ...others] = look.lines;
    verdict({ healthy: "good", attention: "bad" }[worst.health] ?? "busy", worst.line, look.lines.map((one) => one.health).join());
    update($("others"), others.map((other) => element("li", "", other.line)));
  }
  if (!look.known) return;
  update($("shards"), look.shards.map((shard, _, all) => shardItem(shard, Math.max(50, ...all.map((one) => one.records)))));
  renderPairs($("backlog"), [
    ["Envelopes in the overflow queue", look.in_queue],
    ...look.waiting.map((one) => [`Waiting for ${one.database || one.account} (${one.reason})`, `${plural(one.rows, "row")}, ${lasting(one.seconds)}`]),
    ...look.budgets.map((one) => [`Budget of ${one.account}`, `${Math.round(100 * one.spent)} % spent in the last minute; at least ${plural(one.refused_requests, "request")} refused in the last day`]),
  ]);
  renderRows(look);
  $("rejected-part").hidden = !look.rejected.length;
  update($("rejected"), look.rejected.map((one) => element("li", "",
    element("span", "pair", element("b", "", `${one.account}/${one.table || "–"}`), element("span", "", plural(one.events, "event"))), element("small", "", one.code))));
  const errors = look.errors.map((one) => element("li", "",
    element("span", "", `${one.what}${one.why ? `: ${one.why}` : ""}`),
    element("small", "", `${one.function}, ${plural(one.times, "time")}, last ${clock(Date.parse(one.last) / 1000)}`)));
  update($("errors"), errors.length ? errors : [element("li", "quiet", "none")]);
}

function shardItem(shard, most) {
  const fill = element("i");
  fill.style.width = `${(100 * shard.records) / most}%`;
  const many = `${number(shard.records)}${shard.is_complete ? "" : " or more"} waiting, ${lasting(shard.behind_seconds)}`;
  const waits = shard.records ? many : "nothing waiting";
  return element("div", "shard",
    element("p", "", `shard ${Number(shard.shard.split("-")[1])}`, element("span", shard.records ? "" : "quiet", waits)),
    element("div", "bar", fill),
    element("small", "", `${number(shard.rows_per_second)} rows a second`));
}

const KINDS = { waiting: "waiting", again: "perhaps copies", dead: "dead", rejected: "rejected" };

function renderRows(look) {
  const items = look.rows.map((one) => {
    const item = element("li", "", element("span", "pair", element("b", "", one.account), element("span", "", plural(one.rows, "row"))),
      element("small", "", `${KINDS[one.kind] ?? one.kind}: ${one.reason}`));
    if (state.allows_changes) {
      const buttons = element("span", "small-buttons");
      if (state.redrivable.includes(one.kind)) buttons.append(actionButton("redrive", one));
      if (state.droppable.includes(one.kind)) buttons.append(actionButton("drop", one));
      item.append(buttons);
    }
    return item;
  });
  update($("rows-list"), items.length ? items : [element("li", "quiet", "nothing")]);
  const hint = state.allows_changes || !look.rows.length ? "" : "Read-only. Start the console with --allow-changes to redrive and drop.";
  $("rows-note").textContent = look.rows_are_complete ? hint : `This count is incomplete. ${hint}`;
}

function actionButton(what, one) {
  const button = element("button", what === "drop" ? "danger" : "", what === "drop" ? "Drop" : "Redrive");
  button.type = "button";
  button.setAttribute("aria-label", `${button.textContent} ${plural(one.rows, "row")} of ${one.account}, ${KINDS[one.kind] ?? one.kind}: ${one.reason}`);
  button.dataset.key = `${what} ${one.kind} ${one.account} ${one.reason}`;
  button.onclick = () => confirm(what, one);
  return button;
}

const OUTCOMES = { delivered: "delivered", kept: "kept", dead: "newly dead", dropped: "dropped", copies: "copies" };

function renderActions(actions) {
  $("actions-part").hidden = !actions.length;
  update($("actions"), actions.map((action) => {
    const outcomes = Object.entries(action.result ?? {}).filter(([name, rows]) => OUTCOMES[name] && rows).map(([name, rows]) => `${number(rows)} ${OUTCOMES[name]}`);
    const said = { running: "running …", failed: action.error, done: outcomes.join(", ") || "no rows were left" }[action.state];
    return element("li", "", element("span", "", `${action.what === "drop" ? "Drop" : "Redrive"} of ${plural(action.rows, "row")} of ${action.account}: ${said}`),
      element("small", "", `${clock(action.at)}, ${KINDS[action.kind] ?? action.kind}: ${action.reason}`));
  }));
}

function renderCounts(counts) {
  for (const name of ["accepted", "in-flight", "delivered", "waiting", "dead"]) {
    const value = counts[name.replace("-", "_")];
    $(name).textContent = value === undefined ? "–" : number(value);
    $(name).classList.toggle("some", value > 0);
  }
  const said = counts.error ? `Counts: ${counts.error}.` : counts.known ? `As of ${clock(counts.at)}.` : "Counting …";
  $("flow-note").textContent = `${said} ${counts.known && !counts.is_complete ? "More events are on the stream." : ""}`;
  $("tables-note").textContent = `${said} Times and rates refer to when the worker planned the rows.`;
  if (!counts.known) return;
  const rows = counts.tables.map((one) => {
    const cells = [one.received, one.delivered, one.in_flight, one.waiting, one.dead, one.per_minute];
    return element("tr", "",
      rowHeader(one),
      ...cells.map((n) => element("td", n ? "number" : "number quiet", number(n))),
      element("td", "", hours(one.hours)),
      element("td", "", clock(one.last)),
      element("td", "", clock(one.first)));
  });
  if (!rows.length) {
    const cell = element("td", "quiet", "No tables yet. The worker creates them when needed.");
    cell.colSpan = 10;
    rows.push(element("tr", "", cell));
  }
  update($("tables").tBodies[0], rows);
  options($("filter-account"), [...new Set(counts.tables.map((one) => one.account))]);
  options($("filter-table"), [...new Set(counts.tables.map((one) => one.table))]);
}

function rowHeader(one) {
  const header = element("th", "", element("span", "", `${one.account}/`), element("wbr"), one.table);
  header.scope = "row";
  return header;
}

const SVG = "http://www.w3.org/2000/svg";

function hours(counts) {
  const most = Math.max(1, ...counts);
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", `0 0 ${counts.length * 4} 20`);
  chart.setAttribute("class", "hours");
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `${number(counts.reduce((sum, n) => sum + n, 0))} in 24 hours`);
  counts.forEach((count, index) => {
    const bar = document.createElementNS(SVG, "rect");
    const height = count ? Math.max(2, (count / most) * 20) : 0.5;
    for (const [name, value] of Object.entries({ x: index * 4, y: 20 - height, width: 3, height })) bar.setAttribute(name, value);
    chart.append(bar);
  });
  return chart;
}

function renderAccounts(accounts) {
  $("accounts-note").textContent = accounts.error ? `${accounts.error}.` : !accounts.known ? "Reading Redis …" : accounts.applied_at ? `Applied ${accounts.applied_at}.` : "Redis is empty: apply accounts.yaml.";
  if (!accounts.known) return;
  const items = accounts.accounts.map((one) => {
    const revoked = one.revoked_key_ids.length ? `revoked keys: ${one.revoked_key_ids.join(", ")}` : "";
    const used = [...(keys.get(one.account) ?? [])].sort().join(", ");
    const plan = one.plan ? `tracking plan: ${plural(one.plan.tables, "table")}, ${one.plan.mode}` : "";
    const small = [used && `keys seen: ${used}`, revoked, plan].filter(Boolean).join("; ");
    return element("li", "", element("span", "pair", element("b", "", one.account), element("span", one.status === "active" ? "" : "warn", one.status === "active" ? one.database : one.status)),
      ...(small ? [element("small", "", small)] : []));
  });
  update($("account-list"), items.length ? items : [element("li", "quiet", "none")]);
}

function renderPairs(list, pairs) {
  update(list, pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", typeof value === "number" ? number(value) : value)]));
}

function renderAddresses(addresses) {
  update($("addresses"), Object.entries(addresses).map(([name, address]) => element("span", "", `${name} `, element("code", "", address))));
}

/* Replace the children only if they differ, to keep the focus and selection and not to disturb screen readers. */
function update(parent, children) {
  const before = document.activeElement?.dataset?.key;
  if (parent.childNodes.length === children.length && children.every((child, index) => child.isEqualNode(parent.childNodes[index]))) return;
  parent.replaceChildren(...children);
  if (before) [...parent.querySelectorAll("[data-key]")].find((one) => one.dataset.key === before)?.focus();
}

function options(select, names) {
  for (const name of names.sort()) if (![...select.options].some((option) => option.value === name)) select.append(new Option(name));
}

function lasting(seconds) {
  return seconds < 100 ? `${Math.round(seconds)} s` : seconds < 7200 ? `${number(Math.round(seconds / 60))} min` : `${number(Math.round(seconds / 3600))} h`;
}

function clock(seconds) {
  if (!seconds) return "–";
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString("en-GB", CLOCK);
  return Math.abs(Date.now() - at) < 18 * 3600e3 ? time : at.toLocaleDateString("sv-SE");
}

/* --- confirmations --- */

async function confirm(what, one) {
  const isDrop = what === "drop";
  const rows = `${plural(one.rows, "row")} of ${one.account}`;
  $("confirm-title").textContent = isDrop ? `Drop ${rows}?` : `Redrive ${rows}?`;
  $("confirm-text").textContent = `They are ${KINDS[one.kind] ?? one.kind} (${one.reason}). ${isDrop ? "Sluice gives up these rows and never sends them. This cannot be undone." : "Sluice sends them to Treasure Data. Rows that it does not take stay in S3."}`;
  $("confirm-word-part").hidden = !isDrop;
  $("confirm-word").value = "";
  $("confirm-yes").textContent = isDrop ? "Drop them" : "Redrive them";
  $("confirm-yes").className = isDrop ? "danger" : "";
  $("confirm-yes").disabled = isDrop;
  $("confirm").returnValue = "";
  $("confirm").showModal();
  $(isDrop ? "confirm-word" : "confirm-no").focus();
  await new Promise((done) => {
    // the event of an earlier confirmation may come when this one is open
    $("confirm").onclose = () => { if (!$("confirm").open) done(); };
  });
  if ($("confirm").returnValue !== "yes" || (isDrop && $("confirm-word").value.trim() !== "drop")) return;
  try {
    await ask(what, { kind: one.kind, account: one.account, reason: one.reason, rows: one.rows, which: one.which });
    $("stale").textContent = "";
  } catch (error) {
    $("stale").textContent = `${isDrop ? "Drop" : "Redrive"}: ${error.message}.`;
  }
}
$("confirm-word").oninput = () => { $("confirm-yes").disabled = $("confirm-word").value.trim() !== "drop"; };
$("confirm-no").onclick = () => $("confirm").close("");

/* --- live events --- */

// Columns that Sluice and its clients add to every event. An event's own columns come first.
const ADDED = /^(td_.*|time|event_id|received_at|sent_at|batch_id|bot)$/;
const events = [];
const keys = new Map();
let after = 0;

async function poll() {
  const found = await ask(`events.json?after=${after}`);
  after = found.next;
  for (const event of found.events) {
    events.unshift(event);
    if (event.key_id) keys.set(event.account, (keys.get(event.account) ?? new Set()).add(event.key_id));
  }
  events.sort((one, other) => other.at - one.at || other.number - one.number); // shards are read one after the other
  events.length = Math.min(events.length, KEPT);
  options($("filter-account"), [...new Set(found.events.map((event) => event.account).filter(Boolean))]);
  options($("filter-table"), [...new Set(found.events.map((event) => event.table).filter(Boolean))]);
  $("events-note").textContent = found.note;
  if (found.events.length) show();
}

const isGood = (event) => event.kind === "event" && !event.differs.length;

function wanted(event) {
  const kind = document.querySelector("[name=kind]:checked").value;
  const text = $("filter-text").value.trim();
  const [column, value] = text.split(/=(.*)/s);
  const holds = !text || (value !== undefined && `${event.row?.[column]}` === value) || JSON.stringify(event).toLowerCase().includes(text.toLowerCase());
  return holds && (!kind || kind === (isGood(event) ? "good" : "bad"))
    && (!$("filter-account").value || event.account === $("filter-account").value)
    && (!$("filter-table").value || event.table === $("filter-table").value);
}

function show() {
  const found = events.filter(wanted).slice(0, SHOWN);
  const shown = new Map([...$("events").children].map((item) => [item.dataset.number, item]));
  const items = found.map((event) => shown.get(`${event.number}`) ?? eventItem(event));
  const kept = new Set(items);
  for (const item of [...$("events").children]) if (!kept.has(item)) item.remove();
  items.forEach((item, index) => { if ($("events").children[index] !== item) $("events").insertBefore(item, $("events").children[index] ?? null); });
  $("events-empty").hidden = items.length > 0;
  if (!items.length && events.length) $("events-empty").textContent = "No event matches these filters.";
}

export function ownFirst(row) {
  const names = Object.keys(row);
  return [...names.filter((name) => !ADDED.test(name)), ...names.filter((name) => ADDED.test(name))];
}

function eventItem(event) {
  const what = element("span", "what");
  if (event.code) what.append(element("b", "code", event.code));
  for (const message of event.differs) what.append(element("b", "differs", message));
  const own = ownFirst(event.row ?? {});
  for (const name of own.slice(0, 8)) what.append(element("span", "", element("i", "", name), text(event.row[name]).slice(0, 80)));
  if (event.path) what.append(element("span", "", event.path));
  const place = event.account ? `${event.account}/${event.table || "–"}` : "refused request";
  const mark = isGood(event) ? ["good", "good"] : { event: ["warn", "differs"], rejected: ["bad", "rejected"], refused: ["bad", "refused"] }[event.kind];
  const summary = element("summary", "", element("time", "", clock(event.at)), element("span", `mark ${mark[0]}`, mark[1]), element("span", "where", place), what);
  const details = element("details", "", summary);
  details.ontoggle = () => {
    if (!details.open || details.querySelector("dl")) return;
    const list = element("dl", "columns-of");
    const about = { "key id": event.key_id, "request id": event.request_id, "event id": event.event_id, shard: event.shard };
    const told = Object.entries(about).filter(([, value]) => value);
    for (const name of own) list.append(element("dt", "", name), element("dd", "", text(event.row[name])));
    for (const [name, value] of told) list.append(element("dt", "quiet", name), element("dd", "quiet", value));
    details.append(list);
  };
  const item = element("li", "", details);
  item.dataset.number = event.number;
  return item;
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

$("filters").oninput = show;
$("filters").onsubmit = (event) => event.preventDefault();

repeat(STATE_MS, async () => render(await ask("state.json")));
repeat(EVENTS_MS, poll);
