/* How the built script delivers events, in a simulated browser with a simulated clock. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chance } from './support/chance.js';
import { Browser } from './support/model.js';

const MINUTE = 60_000;
const DAYS = 24 * 60; // minutes
const bodies = (browser) => browser.server.requests.map(({ body }) => JSON.parse(body));
const numbers = (browser) => browser.server.rows.map(({ n }) => n);
const batches = (browser) => [...browser.stored.keys()].filter((key) => key.includes('.b.'));

/** Tracks the events with these numbers. */
const make = (page, first, last = first, columns = {}) => {
  for (let n = first; n <= last; n += 1) page.sluice('track', 'visits', { n, ...columns });
};

test('the events of one second are sent in one request', async () => {
  const browser = new Browser();
  make(browser.open(), 1, 3);
  await browser.clock.advance(999);
  assert.equal(browser.server.requests.length, 0);
  await browser.clock.advance(100);
  assert.deepEqual(
    bodies(browser).map(({ events }) => events.map(({ n }) => n)),
    [[1, 2, 3]],
  );
});

test('ten events are sent at once', async () => {
  const browser = new Browser();
  make(browser.open(), 1, 23);
  await browser.clock.advance(500);
  assert.deepEqual(
    bodies(browser).map(({ events }) => events.length),
    [10, 10],
  );
  await browser.clock.advance(1000);
  assert.deepEqual(
    bodies(browser).map(({ events }) => events.length),
    [10, 10, 3],
  );
});

test('flush sends events at once', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1);
  page.sluice('flush');
  await browser.clock.advance(50);
  assert.deepEqual(numbers(browser), [1]);
});

test('a page that is hidden sends its events at once', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1);
  page.hide();
  await browser.clock.advance(50);
  assert.deepEqual(numbers(browser), [1]);
});

test('a request uses keepalive, and has the batch id and the time of sending', async () => {
  const browser = new Browser();
  make(browser.open(), 1);
  await browser.clock.advance(1100);
  const [{ url, body, keepalive }] = browser.server.requests;
  const { batch_id, sent_at, write_key, events, ...rest } = JSON.parse(body);
  assert.equal(url, 'https://collect.example/v1/events');
  assert.equal(keepalive, true);
  assert.match(batch_id, /^[0-9a-z]{8}-[0-9a-f-]{36}$/);
  assert.equal(sent_at, 1_800_000_001_000);
  assert.equal(write_key, 'shop.k1.mac');
  assert.equal(events[0].n, 1);
  assert.deepEqual(rest, {});
});

test('a batch that is too large for keepalive is sent without it', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1, 1, { text: 'x'.repeat(30_000) });
  make(page, 2);
  await browser.clock.advance(1100);
  assert.deepEqual(numbers(browser), [1, 2]);
  assert.deepEqual(
    browser.server.requests.map(({ keepalive }) => keepalive),
    [false, true],
  );
});

test('batches are deleted from storage once they are delivered', async () => {
  const browser = new Browser();
  make(browser.open(), 1, 12);
  await browser.clock.advance(2000);
  assert.deepEqual(batches(browser), []);
});

test('the endpoint may end with a slash', async () => {
  const browser = new Browser();
  make(browser.open({ endpoint: 'https://collect.example/' }), 1);
  await browser.clock.advance(1100);
  assert.equal(browser.server.requests[0].url, 'https://collect.example/v1/events');
});

test('a failed request is retried with the same id and events', async () => {
  const browser = new Browser();
  const page = browser.open();
  const fates = ['take', 'lose answer', 503, 'take'];
  browser.server.decide = () => fates.shift();
  make(page, 1);
  await browser.clock.advance(2000);
  make(page, 2, 4);
  await browser.clock.advance(MINUTE);
  const [, ...sent] = bodies(browser).map(({ sent_at, ...body }) => body);
  assert.equal(sent.length, 3);
  assert.deepEqual(sent, [sent[0], sent[0], sent[0]]);
  assert.deepEqual(Object.keys(sent[0]), ['batch_id', 'write_key', 'events']);
  assert.deepEqual(numbers(browser), [1, 2, 3, 4]);
});

test('Retry-After is respected, by other pages too', async () => {
  const browser = new Browser();
  browser.server.decide = () => ({ status: 503, headers: { 'retry-after': '120' }, body: {} });
  const page = browser.open();
  make(page, 1);
  await browser.clock.advance(2000);
  page.leave();
  make(browser.open(), 2);
  await browser.clock.advance(110_000);
  assert.equal(browser.server.requests.length, 1);
  browser.server.decide = () => 'take';
  await browser.clock.advance(20_000);
  assert.deepEqual(numbers(browser).sort(), [1, 2]);
});

test('pauses between retries grow to five minutes, with random jitter', async () => {
  const pauses = async (seed) => {
    const browser = new Browser({ random: chance(seed) });
    browser.server.decide = () => 503;
    make(browser.open(), 1);
    await browser.clock.advance(120 * MINUTE);
    const at = browser.server.requests.map((request) => request.at);
    return at.slice(1).map((time, index) => time - at[index]);
  };
  const some = await pauses(1);
  assert.ok(some[0] < 4000, `the first is ${some[0]} ms`);
  assert.ok(Math.max(...some) < 5 * MINUTE + 4000, `the longest is ${Math.max(...some)} ms`);
  assert.ok(some.length > 20 && some.length < 200, `${some.length} in two hours`);
  assert.notDeepEqual(some, await pauses(2));
});

test('a request without a response is aborted after ten seconds and retried', async () => {
  const browser = new Browser();
  const fates = ['lose request', 'take'];
  browser.server.decide = () => fates.shift();
  make(browser.open(), 1);
  await browser.clock.advance(10_900);
  assert.equal(browser.server.requests.length, 1);
  await browser.clock.advance(5000);
  assert.deepEqual(numbers(browser), [1]);
});

test('an offline page sends nothing and sets no timers, and sends everything once it is online', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.setOnline(false);
  make(page, 1, 15);
  await browser.clock.advance(30 * MINUTE);
  assert.deepEqual([browser.server.requests.length, browser.clock.timers.size], [0, 0]);
  browser.setOnline(true);
  await browser.clock.advance(2000);
  assert.equal(browser.server.rows.length, 15);
});

test('a rejected event is not sent again, and the other events of its batch are delivered', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => ({
    status: 200,
    body: { accepted: 1, rejected: [{ index: 1, code: 'invalid_table', message: 'no' }] },
  });
  make(page, 1, 2);
  await browser.clock.advance(2000);
  browser.server.decide = () => 'take';
  make(page, 3);
  await browser.clock.advance(10 * MINUTE);
  assert.equal(browser.server.requests.length, 2);
  assert.equal(browser.server.rows[0].sluice_dropped, 1);
  assert.equal(page.warnings.length, 1);
});

for (const status of [400, 403, 413]) {
  test(`a batch rejected with ${status} is not sent again, and its events are counted as dropped`, async () => {
    const browser = new Browser();
    const page = browser.open();
    browser.server.decide = () => status;
    make(page, 1, 2);
    await browser.clock.advance(2000);
    browser.server.decide = () => 'take';
    make(page, 3, 4);
    await browser.clock.advance(10 * MINUTE);
    assert.deepEqual(
      browser.server.rows.map(({ n, sluice_dropped }) => [n, sluice_dropped]),
      [
        [3, 2],
        [4, undefined],
      ],
    );
  });
}

for (const answer of [
  401,
  404,
  408,
  429,
  500,
  502,
  { status: 200, body: {} },
  { status: 200, body: null },
  { status: 200, body: { status: 'ok' } },
  { status: 200, body: { rejected: [] } },
  { status: 200, body: { accepted: 1, rejected: [] } },
  { status: 200, body: { accepted: 0, rejected: [7, 7] } },
  { status: 200, body: { accepted: 0, rejected: 'no' } },
  { status: 400, body: { rejected: 'no' } },
  { status: 500, body: { accepted: 2, rejected: [] } },
  { status: 200, body: '<h1>Welcome to our wireless network</h1>' },
  { status: 400, body: { error: 'no CSRF token' } },
  { status: 403, body: { message: 'Forbidden' } },
  { status: 403, body: { error: { code: 403, message: 'The caller does not have permission' } } },
  { status: 413, body: [] },
]) {
  test(`a batch that is answered with ${JSON.stringify(answer)} is kept and retried`, async () => {
    const browser = new Browser();
    const fates = [answer, answer, 'take'];
    browser.server.decide = () => fates.shift();
    make(browser.open(), 1, 2);
    await browser.clock.advance(MINUTE);
    assert.deepEqual(numbers(browser), [1, 2]);
  });
}

test('if too much is stored, the oldest events are dropped and counted', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 503;
  make(page, 1, 1000, { text: 'x'.repeat(1000) });
  await browser.clock.advance(2000);
  const kept = [...browser.stored]
    .filter(([key]) => key.includes('.b.'))
    .reduce((sum, [, text]) => sum + text.length, 0);
  assert.ok(kept < 530_000, `${kept} characters are kept`);
  browser.server.decide = () => 'take';
  await browser.clock.advance(MINUTE);
  make(page, 1001);
  await browser.clock.advance(10 * MINUTE);
  const rows = browser.server.rows;
  const first = Math.min(...numbers(browser));
  assert.deepEqual(
    numbers(browser).sort((a, b) => a - b),
    Array.from({ length: 1001 - first + 1 }, (_, index) => first + index),
  );
  assert.equal(
    rows.reduce((sum, { sluice_dropped = 0 }) => sum + sluice_dropped, 0),
    first - 1,
  );
});

test('an event that is too large for any request is dropped alone', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1);
  make(page, 2, 2, { text: 'x'.repeat(300_000) });
  make(page, 3);
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ n, sluice_dropped }) => [n, sluice_dropped]),
    [
      [1, undefined],
      [3, 1],
    ],
  );
});

test('a page that is left sends its events by beacon, and the next page retries them', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1, 2);
  page.leave();
  await browser.clock.advance(1000);
  assert.deepEqual(numbers(browser), [1, 2]);
  browser.open();
  await browser.clock.advance(MINUTE);
  const [first, again, ...more] = bodies(browser);
  assert.deepEqual([first.batch_id, first.events, []], [again.batch_id, again.events, more]);
  assert.deepEqual(numbers(browser), [1, 2]);
  assert.deepEqual(batches(browser), []);
});

test('if the browser does not accept a beacon, the events are sent with a keepalive request', async () => {
  const browser = new Browser();
  browser.beacon = () => false;
  const page = browser.open();
  make(page, 1);
  page.leave();
  await browser.clock.advance(1000);
  assert.deepEqual(
    browser.server.requests.map(({ beacon, keepalive }) => [beacon, keepalive]),
    [[undefined, true]],
  );
});

test('a page whose script ends while it sends a beacon delivers nothing twice', async () => {
  const browser = new Browser();
  browser.cuts = () => true;
  const page = browser.open();
  make(page, 1, 2);
  page.leave();
  await browser.clock.advance(1000);
  assert.deepEqual(numbers(browser), [1, 2]);
  browser.open();
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser), [1, 2]);
  assert.deepEqual(batches(browser), []);
});

test('events that a page never sent are sent by the next page, even weeks later', async () => {
  for (const minutes of [1, 61, 60 * DAYS]) {
    const browser = new Browser();
    const page = browser.open();
    make(page, 1);
    await browser.clock.advance(1);
    page.kill();
    await browser.clock.advance(minutes * MINUTE);
    assert.equal(browser.server.requests.length, 0);
    browser.open();
    await browser.clock.advance(MINUTE);
    assert.deepEqual(numbers(browser), [1]);
  }
});

test('a batch sent by a page that was left is retried while the server recognizes it, and later counts as delivered', async () => {
  for (const [minutes, requests] of [
    [28 * DAYS, 2],
    [30 * DAYS, 1],
  ]) {
    const browser = new Browser();
    const page = browser.open();
    make(page, 1);
    page.leave();
    await browser.clock.advance(minutes * MINUTE);
    browser.open();
    await browser.clock.advance(MINUTE);
    assert.equal(browser.server.requests.length, requests, `after ${minutes} minutes`);
    assert.deepEqual(numbers(browser), [1]);
    assert.deepEqual(batches(browser), []);
  }
});

test('events that were never sent or that failed are sent days later', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1);
  await browser.clock.advance(2000);
  browser.server.decide = () => ({ unreadable: true });
  make(page, 2);
  await browser.clock.advance(5 * MINUTE);
  browser.setOnline(false);
  browser.beacon = () => false;
  make(page, 3);
  page.leave();
  await browser.clock.advance(3 * 24 * 60 * MINUTE);
  browser.server.decide = () => 'take';
  browser.setOnline(true);
  browser.open();
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser).sort(), [1, 2, 3]);
});

test("a new visitor's events outlast an endpoint that is unreachable for hours", async () => {
  const browser = new Browser();
  browser.server.decide = () => ({ unreadable: true });
  make(browser.open(), 1);
  await browser.clock.advance(300 * MINUTE);
  browser.server.decide = () => 'take';
  await browser.clock.advance(10 * MINUTE);
  assert.deepEqual(
    browser.server.rows.map(({ n, sluice_dropped }) => [n, sluice_dropped]),
    [[1, undefined]],
  );
  assert.deepEqual(batches(browser), []);
});

test('events count once even if the browser itself repeats a request that was accepted', async () => {
  const browser = new Browser();
  const fates = ['die', 'take'];
  browser.server.decide = () => fates.shift();
  make(browser.open(), 1, 3);
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser), [1, 2, 3]);
  assert.equal(browser.server.requests.length, 2);
  assert.deepEqual(batches(browser), []);
});

for (const [name, sendBeacon] of [
  ['missing', undefined],
  [
    'throwing',
    () => {
      throw new Error('broken');
    },
  ],
]) {
  test(`if sendBeacon is ${name}, the last events are sent in a request or by the next page, even weeks later`, async () => {
    for (const hides of [true, false]) {
      const browser = new Browser();
      const page = browser.open({}, (window) => Object.assign(window.navigator, { sendBeacon }));
      await browser.clock.advance(100);
      make(page, 1, 2);
      page.fire(page.window, 'pagehide');
      if (hides) page.hide();
      await browser.clock.advance(0);
      page.kill();
      await browser.clock.advance(1000);
      assert.equal(browser.server.requests.length, hides ? 1 : 0);
      await browser.clock.advance(60 * DAYS * MINUTE);
      browser.open();
      await browser.clock.advance(MINUTE);
      assert.deepEqual(numbers(browser), [1, 2]);
    }
  });
}

test('a page that clears storage in the task that tracks an event does not lose it', async () => {
  const browser = new Browser();
  const page = browser.open();
  make(page, 1);
  page.storage.clear();
  await browser.clock.advance(2000);
  assert.deepEqual(numbers(browser), [1]);
});

test('without storage, events are kept while their page is open, and the last are sent by beacon', async () => {
  const browser = new Browser();
  const page = browser.open({}, (window) => {
    Object.defineProperty(window, 'localStorage', {
      get() {
        throw new Error('SecurityError');
      },
    });
  });
  browser.server.decide = () => 503;
  make(page, 1);
  await browser.clock.advance(10_000);
  browser.server.decide = () => 'take';
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser), [1]);
  browser.server.decide = () => 503;
  make(page, 2);
  await browser.clock.advance(30_000);
  browser.server.decide = () => 'take';
  page.leave();
  await browser.clock.advance(1000);
  assert.deepEqual(numbers(browser), [1, 2]);
});

test('if storage is full, events are kept while their page is open', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 503;
  browser.capacity = 0;
  make(page, 1, 30);
  await browser.clock.advance(10_000);
  browser.server.decide = () => 'take';
  await browser.clock.advance(MINUTE);
  assert.equal(new Set(numbers(browser)).size, 30);
  assert.equal(numbers(browser).length, 30);
});

test('a batch that a closed page has left arrives once, whichever of two open pages sends it', async () => {
  const browser = new Browser({ random: chance(3) });
  browser.server.decide = () => 503;
  const page = browser.open();
  make(page, 1, 50);
  await browser.clock.advance(20_000);
  page.kill();
  await browser.clock.advance(20_000);
  browser.server.decide = () => 'take';
  browser.open();
  browser.open();
  await browser.clock.advance(5 * MINUTE);
  assert.deepEqual(
    numbers(browser).sort((a, b) => a - b),
    Array.from({ length: 50 }, (_, index) => index + 1),
  );
});

test('two pages that send the same batches at the same moment lose and duplicate nothing', async () => {
  for (const answer of ['take', 503, 'lose answer']) {
    const browser = new Browser({ random: chance(4) });
    const pages = [browser.open(), browser.open()];
    await browser.clock.advance(2000);
    browser.setOnline(false);
    make(pages[0], 1, 30);
    make(pages[1], 31, 60);
    await browser.clock.advance(MINUTE);
    const fates = ['take', answer];
    browser.server.decide = () => fates.shift() || 'take';
    browser.setOnline(true);
    await browser.clock.advance(5 * MINUTE);
    assert.ok(new Set(bodies(browser).map(({ batch_id }) => batch_id)).size < browser.server.requests.length);
    assert.deepEqual(
      numbers(browser).sort((a, b) => a - b),
      Array.from({ length: 60 }, (_, index) => index + 1),
    );
    assert.deepEqual(batches(browser), []);
  }
});

test('a page that is restored from the back/forward cache sends again, even if a request that it had begun never ends', async () => {
  const browser = new Browser();
  const page = browser.open();
  const { fetch } = page.window;
  page.window.fetch = () => new Promise(() => {});
  make(page, 1);
  await browser.clock.advance(2000);
  page.window.fetch = fetch;
  page.fire(page.window, 'pageshow', { persisted: true });
  make(page, 2);
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser).sort(), [1, 2]);
});

test("one account's batches are not sent under the key of another", async () => {
  const browser = new Browser();
  browser.server.decide = () => 503;
  const page = browser.open({ key: 'shop.k1.mac' });
  make(page, 1);
  await browser.clock.advance(2000);
  page.kill();
  browser.server.decide = () => 'take';
  make(browser.open({ key: 'news.k1.mac' }), 2);
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser), [2]);
});

test('stored events are sent under the current key of the account', async () => {
  const browser = new Browser();
  browser.server.decide = () => 401;
  const page = browser.open({ key: 'shop.k1.old' });
  make(page, 1);
  await browser.clock.advance(2000);
  page.leave();
  browser.server.decide = () => 'take';
  browser.open({ key: 'shop.k2.new' });
  await browser.clock.advance(MINUTE);
  assert.equal(bodies(browser).at(-1).write_key, 'shop.k2.new');
  assert.deepEqual(numbers(browser), [1]);
});

test('foreign data under the names of stored batches is harmless', async () => {
  const browser = new Browser();
  browser.stored.set('sluice.shop.b.junk', 'junk');
  browser.stored.set('sluice.shop.b.', '1\n2');
  browser.stored.set('sluice.shop.b.00000000-0', '0\n0\n}{');
  browser.stored.set('sluice.shop.pause', 'never');
  browser.server.decide = ({ body }) => {
    try {
      JSON.parse(body);
      return 'take';
    } catch (error) {
      return 400;
    }
  };
  browser.stored.set('sluice.shop.b.zzzzzzzz-0', '0\n0\n{"n":2}');
  make(browser.open(), 1);
  await browser.clock.advance(10 * MINUTE);
  assert.deepEqual(numbers(browser).sort(), [1, 2]);
});

test('foreign data that is dropped because too much is stored harms no events', async () => {
  const browser = new Browser();
  browser.stored.set('sluice.shop.b.00000000-0', '0\n0\n}{');
  browser.stored.set('sluice.shop.b.00000001-0', `0\n0\n{"text":"${'x'.repeat(500_000)}"}`);
  browser.server.decide = () => 503;
  make(browser.open(), 1, 20);
  await browser.clock.advance(2000);
  browser.server.decide = () => 'take';
  await browser.clock.advance(10 * MINUTE);
  assert.deepEqual(
    numbers(browser)
      .filter((n) => n)
      .sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
});

test('a clock that is set back delays nothing', async () => {
  const browser = new Browser();
  browser.clock.skew = 24 * 60 * MINUTE;
  browser.server.decide = () => 503;
  const page = browser.open();
  make(page, 1);
  await browser.clock.advance(20_000);
  browser.clock.skew = 0;
  browser.server.decide = () => 'take';
  make(page, 2);
  await browser.clock.advance(10 * MINUTE);
  assert.deepEqual(numbers(browser).sort(), [1, 2]);
});

test('a page that clears its storage loses none of its events, sent or not', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 503;
  make(page, 1);
  await browser.clock.advance(5000);
  make(page, 2);
  await browser.clock.advance(10);
  page.evaluate('localStorage.clear()');
  browser.server.decide = () => 'take';
  await browser.clock.advance(MINUTE);
  assert.deepEqual(numbers(browser).sort(), [1, 2]);
});

test('a page that clears its storage during a request keeps its events, under the same batch id', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 'lose request';
  make(page, 1);
  await browser.clock.advance(2000);
  page.evaluate('localStorage.clear()');
  browser.server.decide = () => 'take';
  await browser.clock.advance(MINUTE);
  assert.deepEqual([numbers(browser), new Set(bodies(browser).map(({ batch_id }) => batch_id)).size], [[1], 1]);
});

test('a page that clears its storage and is left passes its events to the browser', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 503;
  make(page, 1);
  await browser.clock.advance(2000);
  page.evaluate('localStorage.clear()');
  browser.server.decide = () => 'take';
  page.leave();
  await browser.clock.advance(1000);
  assert.deepEqual(numbers(browser), [1]);
});

test('a page does not send a batch again that another page has delivered', async () => {
  const browser = new Browser();
  const page = browser.open();
  browser.server.decide = () => 503;
  make(page, 1);
  await browser.clock.advance(2000);
  browser.server.decide = () => 'take';
  const { navigator } = page.window;
  Object.defineProperty(navigator, 'onLine', { value: false, configurable: true });
  browser.open();
  await browser.clock.advance(10 * MINUTE);
  const delivered = browser.server.requests.length;
  Object.defineProperty(navigator, 'onLine', { value: true });
  page.fire(page.window, 'online');
  await browser.clock.advance(10 * MINUTE);
  assert.deepEqual([numbers(browser), browser.server.requests.length], [[1], delivered]);
});

test('a request has at most 20,000 characters of events, or one event of at most 262,144', async () => {
  const random = chance(5);
  const browser = new Browser();
  const page = browser.open();
  for (let round = 0; round < 300; round += 1) {
    make(page, round, round, { text: '\u3042'.repeat(10 ** (random() * 5.6)) });
    await browser.clock.advance(random() * 300);
  }
  await browser.clock.advance(MINUTE);
  const sizes = bodies(browser).map(({ events }) => [events.length, JSON.stringify(events).length - 2]);
  assert.deepEqual(
    sizes.filter(([count, size]) => size > (count > 1 ? 20_000 : 262_144)),
    [],
  );
  // Sluice inflates a body to at most 2 MiB.
  assert.ok(Math.max(...browser.server.requests.map(({ body }) => Buffer.byteLength(body))) < 1_048_576);
  assert.ok(Math.max(...sizes.map(([, size]) => size)) > 200_000);
});
