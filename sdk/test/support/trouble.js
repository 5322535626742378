/* Visits with failures. Each tracks numbered events in real pages, with the same numbers, pauses and
   pages for every tracker. */

import { sleep } from './browser.js';
import { chance } from './chance.js';

const DAY_MS = 86_400_000;

/** Opens a tab; tries again if Firefox reports that it lost the tab, as it may when busy. */
const newTab = async (context, tries = 3) => {
  try {
    return await context.newPage();
  } catch (error) {
    if (tries > 1 && /no such frame/.test(error.message)) return newTab(context, tries - 1);
    throw error;
  }
};

/** A visitor with a browser context. */
export class Visitor {
  constructor(context, site, collector, tracker, seed, options = {}) {
    Object.assign(this, { context, site, collector, tracker, options });
    this.random = chance(seed);
    this.made = 0;
    this.faults = [];
  }

  async tab(prepare) {
    const tab = await newTab(this.context);
    this.last = tab;
    tab.on('pageerror', (error) => this.faults.push(error.message));
    if (prepare) await tab.evaluateOnNewDocument(...[prepare].flat());
    return tab;
  }

  url(page) {
    return this.site.url(this.tracker, page, { options: this.options });
  }

  async open(page = 'home', tab = undefined) {
    tab ??= await this.tab();
    await tab.goto(this.url(page), { waitUntil: 'load' });
    return tab;
  }

  numbers(most = 4) {
    return Array.from({ length: 1 + Math.floor(this.random() * most) }, () => ++this.made);
  }

  /** Tracks some events. */
  send(tab, most) {
    return tab.evaluate((numbers) => numbers.forEach((n) => send(n)), this.numbers(most));
  }

  /** Tracks some events and leaves the page in the same task. */
  async sendAndGo(tab, page) {
    await Promise.all([
      tab.waitForNavigation({ waitUntil: 'load' }),
      tab.evaluate(
        (numbers, next) => {
          numbers.forEach((n) => send(n));
          location.href = next;
        },
        this.numbers(),
        this.url(page),
      ),
    ]);
  }

  pause() {
    return sleep(this.random() * 300);
  }
}

/** Failures by name: each plays a visit, and ends its failure if that is possible. */
export const TROUBLE = {
  'no failure': async (visitor) => {
    const tab = await visitor.open();
    for (const page of ['list', 'item', 'cart']) {
      await visitor.send(tab);
      await visitor.pause();
      await visitor.send(tab);
      await sleep(1200);
      await visitor.open(page, tab);
    }
  },

  'page left right after an event': async (visitor) => {
    const tab = await visitor.open();
    for (const page of ['list', 'item', 'cart', 'paid']) {
      await visitor.sendAndGo(tab, page);
      await visitor.pause();
    }
  },

  'tab closed after an event': async (visitor) => {
    for (let round = 0; round < 3; round += 1) {
      const tab = await visitor.open();
      await visitor.send(tab);
      await tab.close();
    }
    await visitor.open();
  },

  'offline for a while': async (visitor) => {
    const tab = await visitor.open();
    await visitor.send(tab);
    await tab.setOfflineMode(true);
    for (let round = 0; round < 3; round += 1) {
      await visitor.send(tab);
      await sleep(1000);
    }
    await tab.setOfflineMode(false);
  },

  'server returns 503, then recovers': async (visitor) => {
    const tab = await visitor.open();
    await visitor.collector.fault('unavailable');
    for (const page of ['list', 'item']) {
      await visitor.send(tab);
      await sleep(1200);
      await visitor.sendAndGo(tab, page);
    }
    await visitor.collector.fault('none');
  },

  'gateway returns 500 without CORS, then recovers': async (visitor) => {
    const tab = await visitor.open();
    await visitor.send(tab);
    await sleep(1200);
    await visitor.collector.fault('broken');
    await visitor.send(tab);
    await sleep(1200);
    await visitor.sendAndGo(tab, 'list');
    await visitor.collector.fault('none');
  },

  'server hangs, then recovers': async (visitor) => {
    const tab = await visitor.open();
    await visitor.collector.fault('hanging');
    await visitor.send(tab);
    await sleep(1200);
    await visitor.send(tab);
    await sleep(1200);
    await visitor.collector.fault('none');
  },

  'responses are lost': async (visitor) => {
    const tab = await visitor.open();
    await visitor.collector.fault('deaf');
    await visitor.send(tab);
    await sleep(1200);
    await visitor.sendAndGo(tab, 'list');
    await visitor.collector.fault('none');
  },

  'connection closes after a request was taken': async (visitor) => {
    const tab = await visitor.open();
    await visitor.send(tab);
    await sleep(1200); // the connection will be reused
    await visitor.collector.fault('dying');
    for (const page of ['list', 'item']) {
      await visitor.send(tab);
      await sleep(1200);
      await visitor.sendAndGo(tab, page);
    }
    await visitor.collector.fault('none');
  },

  'slow network, page left before the response': async (visitor) => {
    const tab = await visitor.open();
    await visitor.collector.fault('slow');
    for (const page of ['list', 'item']) {
      await visitor.send(tab);
      await sleep(1200);
      await visitor.sendAndGo(tab, page);
    }
    await visitor.collector.fault('none');
  },

  'two tabs, one closed, while the server returns 503': async (visitor) => {
    const [one, other] = [await visitor.open('home'), await visitor.open('list')];
    await visitor.collector.fault('unavailable');
    for (let round = 0; round < 2; round += 1) {
      await visitor.send(one);
      await visitor.send(other);
      await sleep(1200);
    }
    await visitor.send(one);
    await one.close();
    await visitor.collector.fault('none');
    await Promise.all([visitor.open('item'), visitor.open('cart')]);
  },

  'storage full, server returns 503': async (visitor) => {
    const tab = await visitor.open();
    await tab.evaluate(() => {
      for (let size = 1 << 20; size >= 1; size >>= 1) {
        try {
          for (let n = 0; ; n += 1) localStorage.setItem(`page-${size}-${n}`, 'x'.repeat(size));
        } catch (full) {}
      }
    });
    await visitor.collector.fault('unavailable');
    await visitor.send(tab);
    await sleep(1200);
    await visitor.send(tab);
    await visitor.collector.fault('none');
  },

  'clock ten days fast, then corrected': async (visitor) => {
    const ahead = await visitor.tab([
      (ms) => {
        const now = Date.now;
        Date.now = () => now() + ms;
      },
      10 * DAY_MS,
    ]);
    await visitor.open('home', ahead);
    await visitor.send(ahead);
    await sleep(1200);
    await visitor.collector.fault('unavailable');
    await visitor.send(ahead);
    await sleep(1200);
    await visitor.collector.fault('none');
    await ahead.close();
    await visitor.send(await visitor.open('list'));
  },
};

/** Returns the outcome of the visitor's events. */
export const outcome = async (visitor) => {
  const { collector, made } = visitor;
  const copies = new Map();
  for (const { n } of await collector.events()) if (n) copies.set(+n, (copies.get(+n) || 0) + 1);
  const requests = await collector.requests();
  return {
    made,
    delivered: copies.size,
    lost: made - copies.size,
    duplicated: [...copies.values()].reduce((sum, count) => sum + count - 1, 0),
    requests: requests.length,
    bytes: requests.reduce((sum, request) => sum + request.bytes, 0),
    preflights: requests.filter(({ method }) => method == 'OPTIONS').length,
  };
};
