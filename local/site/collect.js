/* Everything a page needs to send events to Sluice. Every function returns a promise of {status, text}. A page cannot see
   the response to an <img> or a beacon, so for these there is no status. */
const collect = (() => {
  const hex = (byte) => byte.toString(16).padStart(2, "0");

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const text = [...bytes].map(hex).join("");
    return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
  }

  function visitor() {
    const known = localStorage.getItem("visitor") || newId();
    localStorage.setItem("visitor", known);
    return known;
  }

  const seconds = () => Math.floor(Date.now() / 1000);

  const event = (table, columns) => ({ table, event_id: newId(), time: seconds(), td_client_id: visitor(), ...columns });

  const page = () => ({ td_url: location.href, td_title: document.title, td_referrer: document.referrer, td_language: navigator.language });

  async function zipped(text) {
    const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
    return new Response(stream).blob();
  }

  function pixel(key, table, columns) {
    const { table: t, ...rest } = event(table, columns);
    return image(`/pixel.gif?${new URLSearchParams({ k: key, t, ...rest })}`);
  }

  function image(target) {
    return new Promise((resolve) => {
      const img = new Image(1, 1);
      img.onload = () => resolve({ text: "image loaded" });
      img.onerror = () => resolve({ text: "image failed to load" });
      img.src = SLUICE.endpoint + target;
    });
  }

  /* `how` says where to put the key: bearer, header, query or body. `zip` compresses the body with gzip. */
  async function send(key, body, { how = "header", zip = false } = {}) {
    const headers = { "content-type": "application/json" };
    if (how === "bearer") headers.authorization = `Bearer ${key}`;
    if (how === "header" && key) headers["x-write-key"] = key;
    if (zip) headers["content-encoding"] = "gzip";
    const target = how === "query" ? `/v1/events?k=${encodeURIComponent(key)}` : "/v1/events";
    if (how === "body") body = { write_key: key, ...body };
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return request("POST", target, { headers, body: zip ? await zipped(text) : text, keepalive: text.length < 10000 });
  }

  async function request(method, target, options = {}) {
    try {
      const answer = await fetch(SLUICE.endpoint + target, { method, ...options });
      return { status: answer.status, text: await answer.text() };
    } catch (error) {
      return { text: `${error}` };
    }
  }

  /* Sent as text/plain, which needs no preflight; the key goes into the query. */
  async function beacon(key, body) {
    const taken = navigator.sendBeacon(`${SLUICE.endpoint}/v1/events?k=${encodeURIComponent(key)}`, JSON.stringify(body));
    return { text: taken ? "queued by the browser" : "rejected by the browser" };
  }

  return { event, page, pixel, image, send, request, beacon };
})();
