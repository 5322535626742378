/* How the built script delivers, in a browser made of objects: every fault, and time as fast as wanted. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Browser } from './support/model.js';

const bodies = (browser) => browser.server.requests.map(({ body }) => JSON.parse(body));
const numbers = (browser) => browser.server.rows.map(({ n }) => n);

test('events of one second are one request', async () => {
  const browser = new Browser();
  const page = browser.open();
  for (let n = 1; n <= 3; n += 1) page.sluice('track', 'visits', { n });
  await browser.clock.advance(999);
  assert.equal(browser.server.requests.length, 0);
  await browser.clock.advance(100);
  assert.equal(browser.server.requests.length, 1);
  assert.deepEqual(numbers(browser), [1, 2, 3]);
});

test('ten events are sent at once', async () => {
  const browser = new Browser();
  const page = browser.open();
  for (let n = 1; n <= 23; n += 1) page.sluice('track', 'visits', { n });
  await browser.clock.advance(500);
  assert.deepEqual(bodies(browser).map(({ events }) => events.length), [10, 10]);
  await browser.clock.advance(1000);
  assert.deepEqual(bodies(browser).map(({ events }) => events.length), [10, 10, 3]);
});
