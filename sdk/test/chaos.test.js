/* The built script in thousands of seeded visits with failures: every event that can be delivered arrives exactly once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chance } from './support/chance.js';
import { Browser } from './support/model.js';

const VISITS = Number(process.env.SLUICE_VISITS || 200);
const FIRST = Number(process.env.SLUICE_SEED || 1);
const MINUTE = 60_000;

const FATES = [
  'take',
  'lose answer',
  'lose request',
  'die',
  503,
  500,
  429,
  401,
  { status: 200, body: 'no JSON' },
  { status: 503, unreadable: true },
];

/** Returns the numbers of events in batches that were sent in two versions, which a server cannot recognize as one batch. */
const torn = (requests) => {
  const versions = new Map();
  for (const { body } of requests) {
    const { batch_id, events } = JSON.parse(body);
    const numbers = JSON.stringify(events.map(({ n }) => n));
    versions.set(batch_id, (versions.get(batch_id) || new Set()).add(numbers));
  }
  const several = [...versions.values()].filter(({ size }) => size > 1);
  return new Set(several.flatMap((texts) => [...texts].flatMap((text) => JSON.parse(text))));
};

/** Simulates one visit of less than an hour. */
const visit = async (seed, { script, forgets, clears, capacity = Infinity }) => {
  const random = chance(seed);
  const pick = (values) => values[Math.floor(random() * values.length)];
  const browser = new Browser({ random, script });
  const { clock, server } = browser;
  // If the clock jumps, pages do not wait reliably, so the network must be fast for a request to arrive before its retry.
  const jumps = random() < 0.5;
  browser.capacity = capacity;
  browser.forgets = () => !!forgets && random() < 0.5;
  server.latency = () => random() * (jumps ? 50 : pick([50, 500, 4000]));
  let made = 0;
  const pages = [];

  const actions = {
    open: () => {
      if (pages.length < 3) pages.push(browser.open());
    },
    track: () => {
      const page = pick(pages);
      for (let count = Math.ceil(random() * 6); page && count > 0; count -= 1)
        page.sluice('track', 'visits', { n: (made += 1) });
    },
    flush: () => void pick(pages)?.sluice('flush'),
    leave: () => {
      if (pages.length) pages.splice(Math.floor(random() * pages.length), 1)[0].leave();
    },
    kill: async () => {
      await clock.advance(1); // the task that tracked events ends before the page does
      if (pages.length) pages.splice(Math.floor(random() * pages.length), 1)[0].kill();
    },
    hide: () => pick(pages)?.hide(),
    trouble: () => {
      const fate = pick(FATES);
      server.decide = () => fate;
    },
    flicker: () => {
      server.decide = () => pick(FATES);
    },
    recovery: () => {
      server.decide = () => 'take';
    },
    online: () => browser.setOnline(!browser.online),
    beacons: () => {
      const works = random() < 0.7;
      browser.beacon = () => works;
      browser.cuts = () => random() < 0.3;
    },
    clock: async () => {
      await clock.advance(100); // the clock jumps after all pages have seen each other's writes
      if (jumps) clock.skew += (random() - 0.5) * 10 * MINUTE;
    },
    // Only pages that live keep what a page clears.
    ...(clears && { leave: () => {}, kill: () => {}, clear: () => pick(pages)?.storage.clear() }),
    wait: () => clock.advance(random() * 1500),
    rest: () => clock.advance(random() * MINUTE),
  };
  const names = Object.keys(actions);
  for (let step = 0; step < 60 && clock.now < 1_800_000_000_000 + 40 * MINUTE; step += 1) {
    const name = random() < 0.4 ? pick(['track', 'wait']) : pick(names);
    await actions[name]();
  }
  server.decide = () => 'take';
  server.latency = () => 20;
  browser.setOnline(true);
  browser.beacon = () => true;
  await clock.advance(100); // a page's last writes become visible a little later
  browser.open();
  await clock.advance(40 * MINUTE);
  const copies = server.copies();
  browser.close();
  const lost = [];
  for (let n = 1; n <= made; n += 1) if (!copies.has(n)) lost.push(n);
  const doubled = [...copies].filter(([, count]) => count > 1).map(([n]) => n);
  const left = [...browser.stored.keys()].filter((key) => key.includes('.b.'));
  return { made, lost, doubled, left, torn: torn(server.requests) };
};

for (const options of [{}, { script: 'sluice.core.js' }, { clears: true }]) {
  test(`no event is lost or duplicated in ${VISITS} visits ${JSON.stringify(options)}`, async () => {
    let made = 0;
    for (let seed = FIRST; seed < FIRST + VISITS; seed += 1) {
      const { made: some, torn, ...result } = await visit(seed, options);
      made += some;
      assert.deepEqual({ seed, ...result }, { seed, lost: [], doubled: [], left: [] });
    }
    assert.ok(made > VISITS * 10);
  });
}

for (const options of [{ forgets: true }, { capacity: 3000 }]) {
  test(`if storage loses writes, only events of torn batches are duplicated in ${VISITS} visits ${JSON.stringify(options)}`, async () => {
    let [all, some] = [0, 0];
    for (let seed = FIRST; seed < FIRST + VISITS; seed += 1) {
      const { made, doubled, left, torn } = await visit(seed, options);
      assert.deepEqual({ seed, left, doubled: doubled.filter((n) => !torn.has(n)) }, { seed, left: [], doubled: [] });
      [all, some] = [all + made, some + doubled.length];
    }
    assert.ok(some < all / 100, `${some} of ${all} are duplicated`);
  });
}
