/* What is stored and sent depends on what the visitor wants, on the built script. */

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
  ['Global Privacy Control can be overlooked', { gpc: false }, { globalPrivacyControl: true }, true],
  ['Do Not Track is overlooked', {}, { doNotTrack: '1' }, true],
  ['Do Not Track is respected where that is asked for', { dnt: true }, { doNotTrack: '1' }, false],
  [
    'a browser that wishes nothing is measured',
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

test('where consent is required nothing is stored or sent before it, and what was held is sent after it', async () => {
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

test('a page that is left before consent leaves nothing', async () => {
  const visit = open({ consent: 'required' });
  visit.page.sluice('track', 'visits', { n: 1 });
  visit.page.leave();
  await visit.browser.clock.advance(60_000);
  assert.deepEqual([visit.sent(), kept(visit)], [[], []]);
});

test('at most a hundred events are held, the latest', async () => {
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

test('consent that is denied drops what was held and erases what was stored', async () => {
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

test('consent that is granted after it was denied begins anew', async () => {
  const visit = open({ consent: 'required' });
  visit.page.sluice('consent', 'denied');
  visit.page.sluice('track', 'visits', { n: 1 });
  visit.page.sluice('consent', 'granted');
  visit.page.sluice('track', 'visits', { n: 2 });
  await visit.browser.clock.advance(2000);
  assert.deepEqual(visit.sent(), [2]);
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

test('the visitor is known by storage, by a cookie, or not at all', async () => {
  const stored = await id({});
  assert.deepEqual([stored.cookie, stored.stored], ['', stored.id]);
  const cookie = await id({ id: 'cookie', cookieName: 'who', cookieDomain: 'shop.example' });
  assert.equal(
    cookie.cookie,
    `who=${cookie.id};path=/;samesite=lax;max-age=63072000;domain=shop.example;secure`,
  );
  assert.equal(cookie.stored, undefined);
  assert.deepEqual(await id({ id: 'none' }), { id: undefined, cookie: '', stored: undefined });
});

test("td-js-sdk's visitors stay the same", async () => {
  assert.equal((await id({}, 'a=b; _td=11111111-2222; c=d')).id, '11111111-2222');
  assert.equal((await id({ id: 'cookie' }, '_td=11111111-2222')).id, '11111111-2222');
});

test('reset and denied consent take the cookie away', async () => {
  for (const command of [['reset'], ['consent', 'denied']]) {
    const visit = open({ id: 'cookie' });
    visit.page.sluice('page');
    visit.page.sluice(...command);
    assert.match(visit.page.document.cookie, /^_td=;.*max-age=0/);
  }
});
