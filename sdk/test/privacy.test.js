/* The built script stores and sends only what the visitor has consented to. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Browser } from './support/model.js';

/** Creates a page in a browser that sends these privacy signals. */
const open = (options, signals = {}, cookie = '') => {
  const browser = new Browser();
  const page = browser.open(options, (window) => {
    Object.assign(window.navigator, signals);
    window.document.cookie = cookie;
  });
  return { browser, page, sent: () => browser.server.rows.map(({ n }) => n) };
};

const kept = ({ browser }) => [...browser.stored.keys()];

for (const [name, options, signals, measured] of [
  ['Global Privacy Control is respected', {}, { globalPrivacyControl: true }, false],
  ['Global Privacy Control is ignored with the option gpc: false', { gpc: false }, { globalPrivacyControl: true }, true],
  ['Do Not Track is ignored by default', {}, { doNotTrack: '1' }, true],
  ['Do Not Track is respected with the option dnt: true', { dnt: true }, { doNotTrack: '1' }, false],
  [
    'events are recorded for a browser without privacy signals',
    { dnt: true },
    { globalPrivacyControl: false, doNotTrack: '0' },
    true,
  ],
]) {
  test(name, async () => {
    const visit = open(options, signals, 'other=1');
    visit.page.sluice('consent', 'granted');
    visit.page.sluice('track', 'visits', { n: 1 });
    await visit.browser.clock.advance(2000);
    visit.page.leave();
    await visit.browser.clock.advance(2000);
    assert.deepEqual(visit.sent(), measured ? [1] : []);
    assert.equal(kept(visit).length > 0, measured);
  });
}

test('if consent is required, events are held without storing them, and sent once it is granted', async () => {
  const visit = open({ consent: 'required', id: 'cookie' });
  visit.page.sluice('identify', 'u');
  visit.page.sluice('track', 'visits', { n: 1 });
  await visit.browser.clock.advance(60_000);
  assert.deepEqual([visit.sent(), kept(visit), visit.page.document.cookie], [[], [], '']);
  visit.page.sluice('consent', 'granted');
  visit.page.sluice('track', 'visits', { n: 2 });
  await visit.browser.clock.advance(2000);
  assert.deepEqual(visit.sent(), [1, 2]);
  const [first, second] = visit.browser.server.rows;
  assert.equal(first.time, second.time - 60);
  assert.equal(first.td_client_id, second.td_client_id);
  assert.match(visit.page.document.cookie, /^_td=/);
});

test('any value of the option consent but false, null and undefined requires consent', async () => {
  for (const [consent, recorded] of [
    [true, false],
    ['Required', false],
    [false, true],
    [null, true],
    [undefined, true],
  ]) {
    const visit = open({ consent });
    visit.page.sluice('track', 'visits', { n: 1 });
    await visit.browser.clock.advance(2000);
    assert.deepEqual([visit.sent(), kept(visit).length > 0], [recorded ? [1] : [], recorded], `${consent}`);
  }
});

test('events that wait for consent keep the visitor and the user of their time', async () => {
  const browser = new Browser();
  const before = browser.open();
  before.sluice('identify', 'old');
  before.sluice('track', 'visits', { n: 1 });
  await browser.clock.advance(2000);
  before.kill();
  const page = browser.open({ consent: 'required' });
  page.sluice('track', 'visits', { n: 2 });
  page.sluice('identify', 'new');
  page.sluice('track', 'visits', { n: 3 });
  page.sluice('reset');
  page.sluice('track', 'visits', { n: 4 });
  page.sluice('identify', 'newest');
  page.sluice('track', 'visits', { n: 5 });
  await browser.clock.advance(2000);
  page.sluice('consent', 'granted');
  page.sluice('track', 'visits', { n: 6 });
  await browser.clock.advance(2000);
  const [, , third, ...others] = browser.server.rows;
  assert.deepEqual(
    browser.server.rows.map(({ n, user_id }) => [n, user_id]),
    [
      [1, 'old'],
      [2, undefined], // the reset forgot this user at once
      [3, 'new'],
      [4, undefined],
      [5, 'newest'],
      [6, 'newest'],
    ],
  );
  const [later, ...more] = new Set(others.map(({ td_client_id }) => td_client_id));
  assert.notEqual(later, third.td_client_id);
  assert.deepEqual(more, []);
});

test('a reset before consent forgets the earlier visitor even if the page is left without a decision', async () => {
  const browser = new Browser();
  const before = browser.open();
  before.sluice('identify', 'old');
  before.sluice('page');
  await browser.clock.advance(2000);
  before.kill();
  const page = browser.open({ consent: 'required' });
  page.sluice('reset');
  await browser.clock.advance(2000);
  page.leave();
  assert.deepEqual(
    [...browser.stored.keys()].filter((key) => /id|user/.test(key)),
    [],
  );
});

test('a user identified before consent is kept, however many events follow', async () => {
  const visit = open({ consent: 'required' });
  visit.page.sluice('identify', 'u');
  for (let n = 1; n <= 130; n += 1) visit.page.sluice('track', 'visits', { n });
  await visit.browser.clock.advance(1);
  visit.page.sluice('consent', 'granted');
  await visit.browser.clock.advance(10_000);
  assert.deepEqual([...new Set(visit.browser.server.rows.map(({ user_id }) => user_id))], ['u']);
});

test('a page that is left before consent stores and sends nothing', async () => {
  const visit = open({ consent: 'required' });
  visit.page.sluice('track', 'visits', { n: 1 });
  visit.page.leave();
  await visit.browser.clock.advance(60_000);
  assert.deepEqual([visit.sent(), kept(visit)], [[], []]);
});

test('only the latest hundred events are held until consent', async () => {
  const visit = open({ consent: 'required' });
  for (let n = 1; n <= 130; n += 1) visit.page.sluice('track', 'visits', { n });
  await visit.browser.clock.advance(1);
  visit.page.sluice('consent', 'granted');
  await visit.browser.clock.advance(10_000);
  assert.deepEqual(
    visit.sent(),
    Array.from({ length: 100 }, (_, index) => index + 31),
  );
});

test('denied consent drops held events and erases stored data', async () => {
  for (const options of [{}, { consent: 'required' }]) {
    const visit = open(options);
    visit.browser.server.decide = () => 503;
    visit.page.sluice('consent', 'granted');
    visit.page.sluice('track', 'visits', { n: 1 });
    await visit.browser.clock.advance(1010); // the request is under way
    visit.page.sluice('track', 'visits', { n: 2 });
    visit.page.sluice('consent', 'denied');
    visit.page.sluice('track', 'visits', { n: 3 });
    await visit.browser.clock.advance(100);
    visit.browser.server.decide = () => 'take';
    await visit.browser.clock.advance(60_000);
    visit.page.leave();
    visit.browser.open(options);
    await visit.browser.clock.advance(60_000);
    assert.deepEqual([visit.sent(), kept(visit)], [[], []]);
  }
});

test('consent granted after a denial applies only to later events', async () => {
  const visit = open({ consent: 'required' });
  visit.page.sluice('consent', 'denied');
  visit.page.sluice('track', 'visits', { n: 1 });
  visit.page.sluice('consent', 'granted');
  visit.page.sluice('track', 'visits', { n: 2 });
  await visit.browser.clock.advance(2000);
  assert.deepEqual(visit.sent(), [2]);
});

test('consent granted after a denial brings back no erased event', async () => {
  const visit = open();
  visit.browser.server.decide = () => 503;
  visit.page.sluice('track', 'visits', { n: 1 });
  await visit.browser.clock.advance(2000); // it was sent once
  visit.page.sluice('track', 'visits', { n: 2 });
  await visit.browser.clock.advance(10); // it is in the open batch
  visit.page.sluice('consent', 'denied');
  visit.page.sluice('consent', 'granted');
  visit.page.sluice('track', 'visits', { n: 3 });
  visit.browser.server.decide = () => 'take';
  await visit.browser.clock.advance(60_000);
  assert.deepEqual(visit.sent(), [3]);
});

test('events of other pages are erased by denied consent too', async () => {
  const visit = open();
  visit.browser.server.decide = () => 503;
  visit.page.sluice('track', 'visits', { n: 1 });
  await visit.browser.clock.advance(2000);
  visit.browser.open().sluice('consent', 'denied');
  await visit.browser.clock.advance(100);
  visit.browser.server.decide = () => 'take';
  await visit.browser.clock.advance(600_000);
  assert.deepEqual(visit.sent(), []);
});

test('denied consent erases events that another page is about to send, even if that page records more', async () => {
  const visit = open();
  visit.page.sluice('track', 'visits', { n: 1 });
  await visit.browser.clock.advance(100);
  visit.browser.open().sluice('consent', 'denied');
  await visit.browser.clock.advance(100);
  visit.page.sluice('track', 'visits', { n: 2 });
  await visit.browser.clock.advance(60_000);
  assert.deepEqual(visit.sent(), [2]);
});

test('consent denied when a page is restored from the back/forward cache is in time', async () => {
  const visit = open();
  visit.browser.setOnline(false);
  visit.page.sluice('track', 'visits', { n: 1 });
  await visit.browser.clock.advance(1000);
  visit.page.window.addEventListener('pageshow', () => visit.page.sluice('consent', 'denied'));
  visit.browser.online = true;
  visit.page.fire(visit.page.document, 'visibilitychange'); // browsers say first that it is visible
  visit.page.fire(visit.page.window, 'pageshow', { persisted: true });
  await visit.browser.clock.advance(60_000);
  assert.deepEqual([visit.sent(), kept(visit)], [[], []]);
});

const id = async (options, cookie) => {
  const visit = open(options, {}, cookie);
  visit.page.sluice('page');
  await visit.browser.clock.advance(2000);
  return {
    id: visit.browser.server.rows[0].td_client_id,
    cookie: visit.page.document.cookie,
    stored: visit.browser.stored.get('sluice.shop.id'),
  };
};

test('the visitor id is kept in storage, in a cookie, or not at all', async () => {
  const stored = await id({});
  assert.deepEqual([stored.cookie, stored.stored], ['', stored.id]);
  const cookie = await id({ id: 'cookie', cookieName: 'who', cookieDomain: 'shop.example' });
  assert.equal(
    cookie.cookie,
    `who=${cookie.id};path=/;samesite=lax;max-age=63072000;domain=shop.example;secure`,
  );
  assert.equal(cookie.stored, undefined);
  for (const none of ['none', false]) {
    assert.deepEqual(await id({ id: none }), { id: undefined, cookie: '', stored: undefined });
  }
});

test("visitors keep the id that td-js-sdk gave them", async () => {
  assert.equal((await id({}, 'a=b; _td=11111111-2222; c=d')).id, '11111111-2222');
  assert.equal((await id({ id: 'cookie' }, '_td=11111111-2222')).id, '11111111-2222');
  assert.equal((await id({ cookieName: '__td.$' }, '__tdx=1; a__td.$=2; __td.$=11111111-2222')).id, '11111111-2222');
});

test('reset and denied consent delete the cookie, whichever domain it has and wherever the id is kept', async () => {
  for (const command of [['reset'], ['consent', 'denied']]) {
    for (const options of [{}, { id: 'none' }, { id: 'cookie' }, { id: 'cookie', cookieDomain: 'shop.example' }]) {
      for (const domain of ['', 'www.shop.example', 'shop.example']) {
        const jar = new Map([[domain, 'of-td-js-sdk']]);
        const page = new Browser().open(options, ({ location, document }) => {
          location.hostname = 'www.shop.example';
          Object.defineProperty(document, 'cookie', {
            get: () => [...jar.values()].map((value) => `_td=${value}`).join('; '),
            set: (text) => {
              const [, value, domain = ''] = text.match(/^_td=([^;]*)(?:.*;domain=([^;]*))?/);
              if (value) jar.set(domain, value);
              else jar.delete(domain);
            },
          });
        });
        page.sluice('page');
        await page.browser.clock.advance(1);
        page.sluice(...command);
        assert.deepEqual([...jar], [], JSON.stringify({ command, options, domain }));
      }
    }
  }
});
