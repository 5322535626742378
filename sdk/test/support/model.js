/* A simulated browser for the built scripts: its pages share storage that is as slow and as unordered as a
   real browser's between its processes, and send requests to a server that can fail in any way. */

import { readFileSync } from 'node:fs';
import { createContext, runInContext } from 'node:vm';
import { Clock } from './clock.js';

const file = (name) => readFileSync(new URL(`../../dist/${name}`, import.meta.url), 'utf8');

/** The server accepts each batch once: the same events under the same id within 30 days are the same batch. */
export class Server {
  constructor(clock) {
    this.clock = clock;
    this.requests = [];
    this.rows = [];
    this.taken = new Map();
    /**
     * Decides on a request: `take`, `lose answer`, `lose request`, a status, an object with `status`, …, or `die`: it is
     * accepted, and the reused connection closes without a response. Chromium then repeats it 12 to 70 ms later, byte for byte.
     */
    this.decide = () => 'take';
    this.latency = () => 20;
  }

  /** Returns the response, or undefined if none arrives; `again` if the browser itself repeats the request. */
  receive(request) {
    const fate = this.decide(request);
    this.requests.push({ at: this.clock.now, fate, ...request });
    if (fate == 'lose request') return undefined;
    if (typeof fate == 'number') {
      const headers = { 'x-sluice-error': 'code' };
      return { status: fate, headers, body: { error: { code: 'code', message: '' } } };
    }
    if (typeof fate == 'object') return fate;
    const { batch_id: id, events } = parsed(request.body);
    const batch = JSON.stringify([id, events]);
    if (!(this.clock.now - this.taken.get(batch) < 30 * 86_400_000)) {
      this.rows.push(...events);
      this.taken.set(batch, this.clock.now);
    }
    if (fate == 'die') return { again: true };
    return fate == 'lose answer'
      ? undefined
      : { status: 200, body: { accepted: events.length, rejected: [] } };
  }

  /** Returns how often each event's `n` arrived. */
  copies() {
    const copies = new Map();
    for (const { n } of this.rows) copies.set(n, (copies.get(n) || 0) + 1);
    return copies;
  }
}

const parsed = (body) => {
  try {
    return JSON.parse(body);
  } catch (error) {
    return { events: [] };
  }
};

export class Browser {
  /** @param {() => number} random */
  constructor({ random = () => 0.5, script = 'sluice.js' } = {}) {
    this.clock = new Clock();
    this.server = new Server(this.clock);
    this.random = random;
    this.stored = new Map();
    this.capacity = Infinity;
    this.pages = new Set();
    /** Whether a page's last writes are lost when it ends. */
    this.forgets = () => false;
    this.online = true;
    this.script = file(script);
    /** Whether the browser accepts a beacon. */
    this.beacon = () => true;
    /** Whether the script ends during sendBeacon, before it returns; handlers of other events still run. */
    this.cuts = () => false;
  }

  open(options = {}, prepare = () => {}) {
    const page = new Page(this, options, prepare);
    this.pages.add(page);
    return page;
  }

  setOnline(online) {
    this.online = online;
    for (const page of this.pages) page.fire(page.window, online ? 'online' : 'offline');
  }

  close() {
    for (const page of this.pages) page.closed = true;
  }
}

/** One page's view of the storage: it sees its own writes at once, and others' a little later. */
class Storage {
  constructor(page) {
    const { browser } = page;
    this.page = page;
    this.view = new Map(browser.stored);
    this.pending = new Map();
    this.sender = new Channel(browser);
    this.receiver = new Channel(browser);
    page.storage = this;
    return new Proxy(this, {
      ownKeys: (target) => [...target.view.keys()],
      getOwnPropertyDescriptor: (target, key) =>
        target.view.has(key)
          ? { value: target.view.get(key), enumerable: true, configurable: true }
          : undefined,
      get: (target, key) => (typeof target[key] == 'function' ? target[key].bind(target) : target[key]),
    });
  }

  getItem(key) {
    return this.view.has(key) ? this.view.get(key) : null;
  }

  setItem(key, text) {
    const size = [...this.view].reduce((sum, [name, value]) => sum + (name == key ? 0 : value.length), 0);
    if (size + text.length > this.page.browser.capacity) throw new Error('QuotaExceededError');
    this.#change(key, String(text));
  }

  removeItem(key) {
    this.#change(key, null);
  }

  clear() {
    this.#change([...this.view.keys()], null);
  }

  /**
   * Shows this page's writes to all pages, in order.
   *
   * @param {string | string[]} changed A key, or all of them.
   */
  #change(changed, text) {
    const { browser } = this.page;
    const keys = [changed].flat();
    const had = keys.some((key) => this.view.has(key));
    for (const key of keys) {
      apply(this.view, key, text);
      this.pending.set(key, (this.pending.get(key) || 0) + 1);
    }
    const lost = () => this.page.closed && browser.forgets();
    this.sender.after(() => {
      if (lost()) return;
      for (const key of keys) {
        apply(browser.stored, key, text);
        this.pending.set(key, this.pending.get(key) - 1);
      }
      for (const page of browser.pages) {
        const { storage, closed } = page;
        if (storage == this || closed) continue;
        storage.receiver.after(() => {
          for (const key of keys) storage.pending.get(key) || apply(storage.view, key, text);
          if (!had && text === null) return; // nothing changed, so browsers say nothing
          page.fire(page.window, 'storage', { key: Array.isArray(changed) ? null : changed, newValue: text });
        });
      }
    });
  }
}

/** Runs tasks in order, each after up to 40 ms. */
class Channel {
  constructor({ clock, random }) {
    Object.assign(this, { clock, random, last: 0 });
  }

  after(run) {
    this.last = Math.max(this.last, this.clock.now + this.random() * 40);
    this.clock.setTimeout(run, this.last - this.clock.now);
  }
}

const apply = (map, key, text) => {
  if (text === null) map.delete(key);
  else map.set(key, text);
};

export class Page {
  constructor(browser, options, prepare) {
    this.browser = browser;
    this.closed = false;
    this.warnings = [];
    const { clock, server } = browser;
    const page = this;

    const window = new EventTarget();
    const document = new EventTarget();
    class FakeDate extends Date {
      static now() {
        return Math.floor(clock.now + clock.skew);
      }
    }
    Object.assign(document, {
      title: 'A page',
      referrer: 'https://elsewhere.example/',
      characterSet: 'UTF-8',
      cookie: '',
      hidden: false,
      documentElement: { scrollHeight: 2000 },
      querySelector: () => null,
    });
    const navigator = {
      language: 'ja-JP',
      platform: 'Test',
      get onLine() {
        return browser.online;
      },
      sendBeacon: (url, body) => {
        if (!browser.beacon()) return false;
        clock.setTimeout(
          () => browser.online && server.receive({ url, body, beacon: true }),
          server.latency(),
        );
        if (browser.cuts()) throw new Error('the script was ended');
        return true;
      },
    };

    const globals = {
      document,
      navigator,
      Date: FakeDate,
      Math: Object.create(Math, { random: { value: browser.random } }),
      location: {
        href: 'https://shop.example/a?utm_source=mail#b',
        host: 'shop.example',
        hostname: 'shop.example',
        pathname: '/a',
        search: '?utm_source=mail',
        protocol: 'https:',
      },
      screen: { width: 1280, height: 720, colorDepth: 24 },
      innerWidth: 1000,
      innerHeight: 700,
      scrollY: 0,
      performance: { now: () => clock.now },
      history: { pushState() {}, replaceState() {} },
      crypto: {
        randomUUID: () =>
          `00000000-0000-4000-8000-${String((browser.ids = (browser.ids || 0) + 1)).padStart(12, '0')}`,
      },
      localStorage: new Storage(page),
      setTimeout: (run, ms) => clock.setTimeout(run, ms, page),
      clearTimeout: (id) => clock.clearTimeout(id),
      console: Object.fromEntries(
        ['info', 'warn', 'error'].map((level) => [level, (...args) => page.warnings.push(args)]),
      ),
      AbortController,
      URLSearchParams,
      fetch: (url, init) => page.fetch(url, init),
      addEventListener: window.addEventListener.bind(window),
    };
    Object.assign(window, globals);
    this.window = window;
    this.document = document;
    const context = createContext(window);
    window.window = window;
    prepare(window, this);
    runInContext(
      'window.sluice = window.sluice || function () { (sluice.q = sluice.q || []).push(arguments) }',
      context,
    );
    this.evaluate = (source) => runInContext(source, context);
    this.run = () => runInContext(browser.script, context);
    this.run();
    this.sluice = (...args) => window.sluice(...args);
    if (options) this.sluice('init', { endpoint: 'https://collect.example', key: 'shop.k1.mac', ...options });
  }

  sleep(ms) {
    return new Promise((done) => this.browser.clock.setTimeout(done, ms, this));
  }

  fetch(url, init) {
    const { browser } = this;
    const { clock, server } = browser;
    return new Promise((resolve, reject) => {
      const live = (run) => () => this.closed || run();
      init.signal?.addEventListener(
        'abort',
        live(() => reject(new Error('aborted'))),
      );
      if (!browser.online) {
        clock.setTimeout(() => reject(new TypeError('Failed to fetch')), 1, this);
        return;
      }
      // A request that was sent continues without its page.
      const arrive = () => {
        const answer = server.receive({ url, body: init.body, keepalive: init.keepalive });
        if (answer == undefined) return;
        if (answer.again) {
          clock.setTimeout(arrive, 12 + browser.random() * 58);
          return;
        }
        clock.setTimeout(
          () => {
            if (!browser.online || answer.unreadable) return reject(new TypeError('Failed to fetch'));
            return resolve({
              status: answer.status,
              ok: answer.status >= 200 && answer.status < 300,
              headers: { get: (name) => answer.headers?.[name] ?? null },
              json: async () => (typeof answer.body == 'string' ? JSON.parse(answer.body) : answer.body),
            });
          },
          server.latency(),
          this,
        );
      };
      clock.setTimeout(arrive, server.latency());
    });
  }

  fire(target, type, members = {}) {
    if (!this.closed) target.dispatchEvent(Object.assign(new Event(type), members));
  }

  hide() {
    Reflect.set(this.document, 'hidden', true);
    this.fire(this.document, 'visibilitychange');
  }

  /** Leaves the page for another one. */
  leave() {
    this.fire(this.window, 'pagehide');
    this.hide();
    this.kill();
  }

  /** Ends the page without any event. */
  kill() {
    this.closed = true;
    this.browser.pages.delete(this);
  }
}
