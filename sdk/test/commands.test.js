/* The commands of the built script. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createContext, runInContext } from 'node:vm';
import { Browser } from './support/model.js';

const PAGE_COLUMNS = {
  td_url: 'https://shop.example/a?utm_source=mail',
  td_host: 'shop.example',
  td_path: '/a',
  td_title: 'A page',
  td_referrer: 'https://elsewhere.example/',
  td_charset: 'utf-8',
  td_language: 'ja-jp',
  td_color: '24-bit',
  td_screen: '1280x720',
  td_viewport: '1000x700',
  td_platform: 'Test',
};
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** Returns the rows that result from the commands. */
const rows = async (options, ...commands) => {
  const browser = new Browser();
  const page = browser.open(options);
  for (const command of commands) page.sluice(...command);
  await browser.clock.advance(2000);
  return browser.server.rows;
};

test("an event has a time, an id, a visitor id, and Treasure Data's columns about the page", async () => {
  const [{ event_id, td_client_id, ...row }] = await rows({}, ['track', 'visits', { n: 1, time: null }]);
  assert.match(event_id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.match(td_client_id, /^[0-9a-f-]{36}$/);
  assert.deepEqual(row, {
    ...PAGE_COLUMNS,
    td_version: `sluice ${version}`,
    utm_source: 'mail',
    time: 1_800_000_000,
    n: 1,
    table: 'visits',
  });
});

test('page sends an event to its table', async () => {
  const tables = async (options) =>
    (await rows(options, ['page', { price: 7 }])).map(({ table, price }) => [table, price]);
  assert.deepEqual(await tables({}), [['pageviews', 7]]);
  assert.deepEqual(await tables({ pageTable: 'views' }), [['views', 7]]);
});

test('an event goes to the table with its name, or to the option eventTable with its name as a column', async () => {
  const found = async (options) =>
    (await rows(options, ['track', 'signup'])).map(({ table, event }) => [table, event]);
  assert.deepEqual(await found({}), [['signup', undefined]]);
  assert.deepEqual(await found({ eventTable: 'events' }), [['events', 'signup']]);
  const [row] = await rows({ eventTable: 'events' }, ['track', 'Any name!', { event: 'mine' }]);
  assert.equal(row.event, 'Any name!');
});

test('set adds columns to later events, an event overrides them, and reset removes them', async () => {
  const found = await rows(
    {},
    ['track', 'one'],
    ['set', { plan: 'a', td_title: 'T' }],
    ['set', { b: 1 }],
    ['track', 'two'],
    ['track', 'three', { plan: 'c' }],
    ['reset'],
    ['track', 'four'],
  );
  assert.deepEqual(
    found.map(({ plan, b, td_title }) => [plan, b, td_title]),
    [
      [undefined, undefined, 'A page'],
      ['a', 1, 'T'],
      ['c', 1, 'T'],
      [undefined, undefined, 'A page'],
    ],
  );
});

test('a column named table does not change the table', async () => {
  const found = await rows({}, ['track', 'one', { table: 'two' }], ['page', { table: 'three' }]);
  assert.deepEqual(
    found.map(({ table }) => table),
    ['one', 'pageviews'],
  );
});

test('at most twenty campaign parameters of a link become columns', async () => {
  const browser = new Browser();
  const page = browser.open(null, (window) => {
    window.location.search = '?' + Array.from({ length: 520 }, (_, n) => `utm_${n}=${n}`).join('&');
  });
  page.sluice('init', { endpoint: 'https://collect.example', key: 'shop.k1.mac' });
  page.sluice('page');
  await browser.clock.advance(2000);
  assert.deepEqual(
    Object.keys(browser.server.rows[0]).filter((name) => name.startsWith('utm_')),
    Array.from({ length: 20 }, (_, n) => `utm_${n}`),
  );
});

test('the visitor stays the same on later pages, until reset', async () => {
  const browser = new Browser();
  const ids = [];
  for (const commands of [['page'], ['page'], ['reset', 'page']]) {
    const page = browser.open();
    for (const command of commands) page.sluice(command);
    await browser.clock.advance(2000);
    ids.push(browser.server.rows.at(-1).td_client_id);
    page.leave();
  }
  assert.equal(ids[0], ids[1]);
  assert.notEqual(ids[1], ids[2]);
});

test('identify sets the user on later pages too, until reset; an empty user changes nothing', async () => {
  const browser = new Browser();
  const users = [];
  for (const commands of [
    [['page']],
    [['identify', 'u1'], ['page']],
    [['identify', null], ['page']],
    [['reset'], ['identify'], ['page']],
    [['identify', 7], ['page']],
  ]) {
    const page = browser.open();
    for (const command of commands) page.sluice(...command);
    await browser.clock.advance(2000);
    users.push(browser.server.rows.at(-1).user_id);
    page.leave();
  }
  assert.deepEqual(users, [undefined, 'u1', 'u1', undefined, '7']);
});

test('commands are queued until the script has loaded and init is called', async () => {
  const browser = new Browser();
  const page = browser.open(null, (window) => {
    window.sluice = Object.assign(() => {}, {
      q: [
        ['page'],
        ['track', 'early'],
        ['init', { endpoint: 'https://collect.example', key: 'shop.k1.mac' }],
      ],
    });
  });
  page.sluice('track', 'late');
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ table }) => table),
    ['pageviews', 'early', 'late'],
  );
});

test('the snippet queues commands even if an element of the page has the id sluice', () => {
  const snippet = readFileSync(new URL('../dist/snippet.html', import.meta.url), 'utf8');
  const window = createContext({ sluice: { tagName: 'MAIN' } });
  window.window = window;
  runInContext(snippet.match(/<script>([^]*?)<\/script>/)[1], window);
  assert.deepEqual(
    Array.from(window.sluice.q, ([command]) => command),
    ['init'],
  );
});

test('a second init or a second script has no effect', async () => {
  const browser = new Browser();
  const page = browser.open();
  const first = page.window.sluice;
  page.run();
  assert.equal(page.window.sluice, first);
  page.sluice('init', { endpoint: 'https://elsewhere.example', key: 'else.k1.mac' });
  page.sluice('page');
  await browser.clock.advance(2000);
  assert.equal(browser.server.requests.length, 1);
  assert.equal(browser.server.requests[0].url, 'https://collect.example/v1/events');
});

test('nothing is sent or stored without a key or an endpoint', async () => {
  for (const options of [{ key: '' }, { endpoint: '' }]) {
    const browser = new Browser();
    const page = browser.open({ ...options, auto: true });
    page.sluice('identify', 'u');
    page.sluice('page');
    await browser.clock.advance(2000);
    page.leave();
    await browser.clock.advance(2000);
    assert.deepEqual([browser.server.requests, [...browser.stored]], [[], []]);
  }
});

test('the core script has the same commands', async () => {
  const browser = new Browser({ script: 'sluice.core.js' });
  const page = browser.open({ auto: true });
  for (const command of [
    ['page'],
    ['identify', 'u'],
    ['set', { a: 1 }],
    ['track', 'visits'],
    ['reset'],
    ['flush'],
  ])
    page.sluice(...command);
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ table, a, user_id }) => [table, a, user_id]),
    [
      ['pageviews', undefined, undefined],
      ['visits', 1, 'u'],
    ],
  );
});

test('a prerendered page is recorded when it is shown', async () => {
  const browser = new Browser();
  const page = browser.open({ auto: ['page'] }, (window) => {
    window.document.prerendering = true;
  });
  await browser.clock.advance(5000);
  assert.equal(browser.server.requests.length, 0);
  page.fire(page.document, 'prerenderingchange');
  await browser.clock.advance(2000);
  assert.deepEqual(
    browser.server.rows.map(({ table }) => table),
    ['pageviews'],
  );
});

test('only the requested kinds of events are recorded automatically', async () => {
  for (const [auto, tables] of [
    [undefined, []],
    [[], []],
    [['page'], ['pageviews']],
    [['leave'], ['events']],
    [true, ['events', 'pageviews']],
  ]) {
    const browser = new Browser();
    const page = browser.open({ auto });
    await browser.clock.advance(2000);
    page.leave();
    await browser.clock.advance(2000);
    assert.deepEqual([...new Set(browser.server.rows.map(({ table }) => table))].sort(), tables);
  }
});

test('a reset in one page applies to all open pages: no later event has the old visitor or user', async () => {
  for (const options of [{}, { id: 'cookie' }]) {
    const browser = new Browser();
    const jar = { cookie: '' };
    const open = () =>
      browser.open(options, ({ document }) =>
        Object.defineProperty(document, 'cookie', {
          get: () => jar.cookie,
          set: (text) => {
            const [pair] = text.split(';');
            jar.cookie = text.includes('max-age=0') ? '' : pair;
          },
        }),
      );
    const [one, other] = [open(), open()];
    one.sluice('identify', 'u1');
    one.sluice('page');
    await browser.clock.advance(2000);
    other.sluice('page');
    await browser.clock.advance(2000);
    one.sluice('reset');
    await browser.clock.advance(2000);
    for (const page of [other, one, other]) {
      page.sluice('page');
      await browser.clock.advance(2000);
    }
    const [first, second, ...later] = browser.server.rows;
    assert.deepEqual([first.user_id, second.user_id], ['u1', 'u1']);
    assert.equal(first.td_client_id, second.td_client_id);
    assert.deepEqual(
      later.map(({ user_id }) => user_id),
      [undefined, undefined, undefined],
    );
    assert.equal(new Set(later.map(({ td_client_id }) => td_client_id)).size, 1);
    assert.notEqual(later[0].td_client_id, first.td_client_id);
  }
});

test('several URL changes in one task are one view, of the last URL', async () => {
  const browser = new Browser();
  const page = browser.open({ auto: ['page'] });
  await browser.clock.advance(2000);
  for (const path of ['b', 'c']) {
    page.window.location.href = `https://shop.example/${path}`;
    page.window.history.pushState();
  }
  await browser.clock.advance(2000);
  page.window.location.href = 'https://shop.example/d';
  page.window.history.replaceState();
  await browser.clock.advance(2000);
  const start = 'https://shop.example/a?utm_source=mail';
  assert.deepEqual(
    browser.server.rows.map(({ td_url, td_referrer }) => [td_url, td_referrer]),
    [
      [start, 'https://elsewhere.example/'],
      ['https://shop.example/c', start],
      ['https://shop.example/d', 'https://shop.example/c'],
    ],
  );
});
