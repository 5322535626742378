/* Common mistakes. Each is a function that makes it and returns the same as the functions of collect. */
const mistakes = (() => {
  const good = (columns) => collect.event("mistakes", { ...columns });
  const post = (body, options) => collect.send(SLUICE.keys.shop, body, options);
  const raw = (members) => JSON.stringify(good()).replace(/}$/, `,${members}}`);

  return {
    "no key": () => collect.send("", good()),
    "forged key": () => collect.send(SLUICE.keys.shop.replace(/.{22}$/, "AAAAAAAAAAAAAAAAAAAAAA"), good()),
    "unknown secret": () => collect.send(SLUICE.keys.shop.replace(".demo.", ".gone."), good()),
    "unknown account": () => collect.send(SLUICE.keys["unknown account"], { events: [good({ why: "not in Redis" }), good()] }),
    "disabled account": () => collect.send(SLUICE.keys["disabled account"], good()),
    "revoked key": () => collect.send(SLUICE.keys["revoked key"], good()),
    "pixel without key": () => collect.image(`/pixel.gif?t=mistakes&page=home`),
    "pixel with a forged key": () => collect.image(`/pixel.gif?k=shop.demo.AAAAAAAAAAAAAAAAAAAAAA&t=mistakes&page=home`),
    "pixel without table": () => collect.image(`/pixel.gif?k=${SLUICE.keys.shop}&page=home`),
    "invalid JSON": () => post('{"events": [{"table": "mistakes", "page": "ho'),
    "empty body": () => post(""),
    "not an object": () => post([7, "seven", null, good()]),
    "invalid table name": () => post({ events: [{ ...good(), table: "Page Views" }, good()] }),
    "no table": () => post({ events: [{ ...good(), table: undefined }, good()] }),
    "event too large": () => post([good({ text: "too much ".repeat(32000) }), good()], { zip: true }),
    "too many events": () => post(Array.from({ length: 501 }, (_, n) => good({ n })), { zip: true }),
    "decompressed body too large": () => post([good({ text: " ".repeat(6 << 20) })], { zip: true }),
    "invalid gzip": () => collect.request("POST", `/v1/events?k=${SLUICE.keys.shop}`, { headers: { "content-encoding": "gzip" }, body: "not gzip" }),
    "nested too deeply": () => post(raw(`"deep":${"[".repeat(300)}${"]".repeat(300)}`)),
    "too many columns": () => post([good(Object.fromEntries(Array.from({ length: 600 }, (_, n) => [`c${n}`, n]))), good()], { zip: true }),
    "time in milliseconds": () => post(good({ time: Date.now() })),
    "time in the future": () => post([good({ time: Math.floor(Date.now() / 1000) + 9 * 86400 }), good({ time: "soon" }), good({ time: new Date().toISOString() })]),
    "unusual column names": () => post(good({ "User ID": 1, user_id: 2, "user-id": 3, v: 4, "": 5, "1st": 6, "日本語": "七", nested: { a: [1, { b: null }] } })),
    "unusual numbers": () => post(raw('"huge":123456789012345678901234567890,"far":1e999,"same":1,"same":2,"lone":"\\ud800"')),
    "invalid UTF-8": () => collect.image(`/pixel.gif?k=${SLUICE.keys.shop}&t=mistakes&name=%ff%fe%80&half=%e6%97`),
    "repeated parameter": () => collect.image(`/pixel.gif?k=${SLUICE.keys.shop}&t=mistakes&tag=a&tag=b,c&tag=`),
    "query too long": () => collect.image(`/pixel.gif?k=${SLUICE.keys.shop}&t=mistakes&text=${"too+long+".repeat(1300)}`),
    "wrong method": () => collect.request("GET", "/v1/events"),
    "unknown path": () => collect.request("GET", "/v0/pixel"),
  };
})();
