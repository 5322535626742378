/* The script never throws an error into the page, whatever arguments the page passes and whatever it does to its globals. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chance } from './support/chance.js';
import { Browser } from './support/model.js';

const throwing = () => {
  throw new Error('broken');
};
const circular = {};
circular.self = circular;

const ODD = [
  undefined,
  null,
  true,
  false,
  0,
  -1,
  NaN,
  Infinity,
  1e21,
  10n,
  '',
  'x',
  'pageviews',
  '\ud800',
  '"}\n',
  'x'.repeat(50_000),
  [],
  [1],
  ['page'],
  {},
  { a: 1 },
  circular,
  Symbol('s'),
  throwing,
  () => {},
  new Date(NaN),
  new Map([[1, 2]]),
  { toJSON: throwing },
  {
    get a() {
      return throwing();
    },
  },
  new Proxy({}, { get: throwing, ownKeys: throwing }),
  Object.create(null),
  { toString: throwing, valueOf: throwing },
];
const COMMANDS = [
  'init',
  'page',
  'track',
  'set',
  'identify',
  'consent',
  'reset',
  'flush',
  'constructor',
  '__proto__',
  'nothing',
];
const OPTIONS = [
  'endpoint',
  'key',
  'auto',
  'pageTable',
  'eventTable',
  'id',
  'cookieName',
  'cookieDomain',
  'consent',
  'gpc',
  'dnt',
  '__proto__',
];

/** Every global that the script uses; BROKEN are values that a page may have assigned to them. */
const GLOBALS = [
  'localStorage',
  'navigator',
  'document',
  'location',
  'screen',
  'history',
  'performance',
  'crypto',
  'console',
  'fetch',
  'setTimeout',
  'clearTimeout',
  'AbortController',
  'URLSearchParams',
  'addEventListener',
  'innerWidth',
  'scrollY',
  'Date',
  'JSON',
  'Math',
  'Promise',
  'Map',
  'Set',
  'Object',
  'Array',
  'Number',
  'String',
  'parseInt',
];
const BROKEN = [undefined, null, 0, '', {}, [], throwing, new Proxy({}, { get: throwing, set: throwing })];

const unhandled = [];
process.on('unhandledRejection', (error) => unhandled.push(error));

const all = async (page, random) => {
  const pick = (values) => values[Math.floor(random() * values.length)];
  for (let round = 0; round < 8; round += 1) page.sluice?.(pick(COMMANDS), pick(ODD), pick(ODD), pick(ODD));
  page.fire(page.window, 'popstate');
  page.fire(page.window, 'scroll');
  page.fire(page.window, 'click', {});
  page.fire(page.window, 'submit', {});
  page.fire(page.window, 'error', { message: pick(ODD) });
  page.fire(page.window, 'unhandledrejection', { reason: pick(ODD) });
  page.fire(page.window, 'online');
  page.fire(page.window, 'pageshow', { persisted: true });
  await page.browser.clock.advance(3000);
  page.leave();
};

test('odd options and odd arguments never throw', async () => {
  const random = chance(11);
  const pick = (values) => values[Math.floor(random() * values.length)];
  for (let round = 0; round < 400; round += 1) {
    const browser = new Browser({ random });
    let options = { endpoint: 'https://collect.example', key: 'shop.k1.mac', auto: true };
    if (random() < 0.1) options = pick(ODD);
    else for (let count = Math.floor(random() * 4); count > 0; count -= 1) options[pick(OPTIONS)] = pick(ODD);
    const page = browser.open(null);
    page.sluice('init', options);
    await all(page, random);
  }
  assert.deepEqual(unhandled, []);
});

test('broken globals never throw', async () => {
  const random = chance(12);
  for (const name of GLOBALS) {
    for (const value of BROKEN) {
      for (const own of [true, false]) {
        const browser = new Browser({ random });
        const page = browser.open({ auto: true }, (window) => {
          if (own) window[name] = value;
          else Object.defineProperty(window, name, { get: throwing });
        });
        await all(page, random);
      }
    }
  }
  assert.deepEqual(unhandled, []);
});

test('globals that break while events are pending never throw', async () => {
  for (const name of GLOBALS) {
    const browser = new Browser();
    const page = browser.open({ auto: true });
    page.sluice('track', 'visits', { n: 1 });
    await browser.clock.advance(10);
    page.window[name] = throwing;
    await browser.clock.advance(3000);
    page.leave();
  }
  assert.deepEqual(unhandled, []);
});

test('loading the script never throws, whatever window.sluice is', () => {
  for (const value of [...BROKEN, { q: 7 }, { q: [7] }, { q: [[throwing]] }, { version: throwing }]) {
    const page = new Browser().open();
    page.window.sluice = value;
    page.run();
  }
});

test('broken members of the browser never throw', async () => {
  const random = chance(13);
  const members = {
    navigator: [
      'language',
      'platform',
      'onLine',
      'sendBeacon',
      'globalPrivacyControl',
      'doNotTrack',
    ],
    document: [
      'title',
      'referrer',
      'characterSet',
      'cookie',
      'hidden',
      'documentElement',
      'querySelector',
      'addEventListener',
    ],
    location: ['href', 'host', 'pathname', 'search', 'protocol'],
    history: ['pushState', 'replaceState'],
  };
  for (const [object, names] of Object.entries(members)) {
    for (const name of names) {
      for (const value of [...BROKEN, 'getter']) {
        const browser = new Browser({ random });
        const page = browser.open({ auto: true }, (window) => {
          Object.defineProperty(
            window[object],
            name,
            value === 'getter' ? { get: throwing } : { value, writable: true },
          );
        });
        await all(page, random);
      }
    }
  }
  assert.deepEqual(unhandled, []);
});

test('events are recorded even if the globals that describe a page are broken', async () => {
  for (const name of [
    'screen',
    'innerWidth',
    'crypto',
    'console',
    'history',
    'performance',
    'localStorage',
    'URLSearchParams',
  ]) {
    const browser = new Browser();
    const page = browser.open({ auto: true }, (window) =>
      Object.defineProperty(window, name, { get: throwing }),
    );
    page.sluice('track', 'visits', { n: 1 });
    await browser.clock.advance(2000);
    assert.ok(
      browser.server.rows.some(({ n }) => n == 1),
      name,
    );
  }
});

test('a column that cannot be serialized is left out alone', async () => {
  const browser = new Browser();
  const page = browser.open();
  for (const text of ['one', circular, { toJSON: throwing }, { deep: 10n }, throwing, 'two']) {
    page.sluice('track', 'visits', { n: 1, text });
  }
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ n, text, table }) => [n, text, table]),
    ['one', undefined, undefined, undefined, undefined, 'two'].map((text) => [1, text, 'visits']),
  );
});

test('what a page changes in a value after the call does not change the event', async () => {
  const browser = new Browser();
  const items = ['kettle'];
  browser.open().sluice('track', 'visits', { items });
  items.pop();
  await browser.clock.advance(2000);
  assert.deepEqual(browser.server.rows[0].items, ['kettle']);
});

test('a BigInt becomes a number with all its digits', async () => {
  const browser = new Browser();
  const page = browser.open();
  for (const n of [0n, -(2n ** 63n)]) page.sluice('track', 'visits', { n });
  await browser.clock.advance(2000);
  assert.match(browser.server.requests[0].body, /"n":0,.*"n":-9223372036854775808,/);
});

test('a column named toJSON does not replace the event or the number of dropped events', async () => {
  const browser = new Browser();
  const page = browser.open();
  page.sluice('track', 'visits', { text: 'x'.repeat(300_000) });
  page.sluice('track', 'visits', { n: 1, toJSON: () => ({ n: 2 }) });
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ n, table, sluice_dropped }) => [n, table, sluice_dropped]),
    [[1, 'visits', 1]],
  );
});

test('events are recorded in a frame without access to cookies', async () => {
  for (const id of ['storage', 'cookie']) {
    const browser = new Browser();
    const page = browser.open({ id }, (window) =>
      Object.defineProperty(window.document, 'cookie', { get: throwing, set: throwing }),
    );
    page.sluice('track', 'visits', { n: 1 });
    page.sluice('track', 'visits', { n: 2 });
    await browser.clock.advance(2000);
    const [one, two] = browser.server.rows;
    assert.deepEqual([one.n, two.n, one.td_client_id], [1, 2, two.td_client_id]);
  }
});

test('what a page adds to Object.prototype does not become a column', async () => {
  const browser = new Browser();
  const page = browser.open();
  page.evaluate('Object.prototype.added = 1');
  page.sluice('track', 'visits', { n: 1 });
  await browser.clock.advance(2000);
  const [{ n, added }] = browser.server.rows;
  assert.deepEqual([n, added], [1, undefined]);
});

test("a page's own toJSON of arrays does not change what is sent", async () => {
  const browser = new Browser();
  const page = browser.open();
  page.evaluate('Array.prototype.toJSON = function () { return "[]" }');
  page.sluice('track', 'visits', { n: 1 });
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ n }) => n),
    [1],
  );
});
