/* Tests for every real browser. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launch, pathOf, sleep, until } from './browser.js';
import { Collector } from './collector.js';
import { Site } from './site.js';
import { TROUBLE, Visitor, outcome } from './trouble.js';

const SEED = Number(process.env.SLUICE_SEED || 7);

/** Returns the number of batches in the browser's storage. */
const keptBatches = (tab) =>
  tab.evaluate(() => Object.keys(localStorage).filter((key) => key.includes('.b.')).length);

/** Checks that each event of the visitor arrives once. */
const arrived = async (visitor) => {
  const { lost, duplicated } = await until(
    () => outcome(visitor),
    ({ lost }) => lost == 0,
    60_000,
  );
  assert.deepEqual({ lost, duplicated }, { lost: 0, duplicated: 0 });
};

/** Runs a function with its own collector and website. */
export const withSite = async (run, ...origins) => {
  const collector = await Collector.start(...origins);
  const site = await Site.start(collector);
  try {
    return await run(collector, site);
  } finally {
    site.stop();
    await collector.stop();
  }
};

export const suite = (name, more = () => {}) => {
  const missing = !pathOf(name);
  if (missing && process.env.CI && name == 'chrome') throw new Error('Chromium is not installed');

  describe(name, { skip: missing && 'not installed', concurrency: 6 }, () => {
    let browser;
    before(async () => {
      browser = await launch(name);
    });
    after(() => browser?.close());

    /** Runs a test with a visitor's own browser context; an uncaught error in a page fails it. */
    const visit = (title, run, { options = {} } = {}) =>
      test(title, { timeout: 240_000 }, () =>
        withSite(async (collector, site) => {
          const context = await browser.createBrowserContext();
          try {
            const visitor = new Visitor(context, site, collector, 'sluice', SEED, options);
            await run(visitor, collector, site);
            assert.deepEqual(visitor.faults, []);
          } finally {
            await context.close();
          }
        }),
      );

    for (const [trouble, play] of Object.entries(TROUBLE)) {
      visit(`${trouble}: nothing is lost or duplicated`, async (visitor) => {
        await play(visitor);
        await until(
          () => outcome(visitor),
          ({ lost }) => lost == 0,
          90_000,
        );
        const tab = visitor.last; // no failure closes this tab; Firefox may still list others that were closed
        await until(
          () => keptBatches(tab),
          (count) => count == 0,
          90_000,
        );
        const { lost, duplicated, preflights } = await outcome(visitor);
        assert.deepEqual({ lost, duplicated, preflights }, { lost: 0, duplicated: 0, preflights: 0 });
        assert.equal(await keptBatches(tab), 0);
      });
    }

    visit('a page that clears its storage loses none of its events', async (visitor, collector) => {
      const tab = await visitor.open();
      await collector.fault('unavailable');
      await visitor.send(tab);
      await sleep(1500); // they were refused once
      await visitor.send(tab);
      await tab.evaluate(() => localStorage.clear());
      await collector.fault('none');
      const { lost, duplicated } = await until(
        () => outcome(visitor),
        ({ lost }) => lost == 0,
        90_000,
      );
      assert.deepEqual({ lost, duplicated }, { lost: 0, duplicated: 0 });
    });

    visit('a failure and a navigation stop neither the next page nor the one that is restored', async (visitor, collector) => {
      const tab = await visitor.tab(() => {
        Math.random = () => 0; // the retry is due when the page is left
        addEventListener('pageshow', ({ persisted }) => (window.persisted = persisted));
      });
      await visitor.open('home', tab);
      await collector.fault('broken');
      await visitor.send(tab, 1);
      await until(() => tab.evaluate(() => 'sluice.shop.pause' in localStorage), Boolean);
      await visitor.open('list', tab);
      await collector.fault('none');
      await visitor.send(tab, 1);
      await arrived(visitor);
      await tab.evaluate(() => void setTimeout(() => history.back()));
      const isBack = () => tab.evaluate(() => window.persisted).catch(() => false); // it throws during the navigation
      assert.equal(await until(isBack, Boolean), true);
      await visitor.send(tab, 1);
      await arrived(visitor);
    });

    visit("reset and denied consent forget td-js-sdk's cookie of the whole domain", async (visitor, collector, site) => {
      const tab = await visitor.tab();
      await tab.goto(visitor.url('home').replace('localhost', 'www.shop.localhost'));
      await tab.evaluate(() => {
        document.cookie = '_td=of-td-js-sdk;domain=shop.localhost;path=/';
        send(1);
        sluice('reset');
        send(2);
        document.cookie = '_td=again;domain=shop.localhost;path=/';
        sluice('consent', 'denied');
        sluice('consent', 'granted');
        send(3);
      });
      visitor.made = 3;
      const events = await named(collector, 'visits', 1);
      assert.deepEqual(
        events.map(({ n }) => n),
        [3],
      );
      assert.doesNotMatch(events[0].td_client_id, /of-td-js-sdk|again/);
      assert.equal(await tab.evaluate(() => document.cookie), '');
    });

    visit('events arrive from a frame without storage or cookies', async (visitor, collector, site) => {
      site.bodies['/frames'] = `<iframe sandbox="allow-scripts" src="${visitor.url('framed')}"></iframe>`;
      site.bodies['/sluice/framed'] = '<script>send(1)</script>';
      const tab = await visitor.tab();
      await tab.goto(`${site.origin}/frames`);
      const events = await until(
        () => collector.events(),
        ({ length }) => length > 0,
      );
      assert.deepEqual(
        events.map(({ n }) => n),
        [1],
      );
    });

    visit('the module exports the same commands', async (visitor, collector, site) => {
      site.bodies['/module'] = `<script type="module">
        import { init, page, track } from '/sluice.mjs';
        init({ endpoint: '${collector.url}', key: '${collector.keys.shop}' });
        page({ n: 1 });
        track('visits', { n: 2 });
      </script>`;
      const tab = await visitor.tab();
      await tab.goto(`${site.origin}/module`);
      const events = await until(
        () => collector.events(),
        ({ length }) => length == 2,
      );
      assert.deepEqual(
        events.map(({ table, n }) => [table, n]),
        [
          ['pageviews', 1],
          ['visits', 2],
        ],
      );
    });

    more(visit);
  });
};

/** Returns the events with this name or table once there are this many; batches may arrive in any order. */
export const named = (collector, name, count = 1) =>
  until(
    async () => (await collector.events()).filter(({ event, table }) => (event || table) == name),
    ({ length }) => length >= count,
  );

export { sleep };
