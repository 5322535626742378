/* The local stack's additions to the console: sends events like a web site, and breaks parts of the stack. */
import { $, element, plural } from "/page.js";

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

/* --- break it --- */

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
    return element("li", "", `${part.name}: ${state}${part.restarts ? `, restarted ${plural(part.restarts, "time")}, last exited ${part.ended}` : ""}`);
  });
  $("parts").replaceChildren(...(said.length ? said : [element("li", "quiet", "all parts are running")]));
}

document.addEventListener("state", ({ detail }) => renderParts(detail));
