/* A website whose pages have a tracker. With every tracker, `send(n)` tracks the event number n. */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const folder = fileURLToPath(new URL('../..', import.meta.url));
const read = (path) => readFileSync(folder + path, 'utf8');

const bundled = (source) =>
  buildSync({
    stdin: { contents: source, resolveDir: folder },
    bundle: true,
    minify: true,
    write: false,
    logLevel: 'error',
  }).outputFiles[0].text;

/** The head of a page, by tracker, with the scripts as real pages have them. */
const TRACKERS = {
  sluice: (endpoint, key, options) =>
    read('dist/snippet.html')
      .replace('{{endpoint}}', endpoint)
      .replace('{{key}}', key)
      .replace('auto:true', `...${JSON.stringify(options)}`)
      .replace(/{{sdk}}[^"]*/, '/sluice.js') +
    "<script>const send = (n) => sluice('track', 'visits', {n})</script>",
  'td-js-sdk': (endpoint) => `<script src="/td.js"></script>
<script>
const td = new Treasure({database: 'other_database', writeKey: '1/key', endpoint: '${endpoint}/'});
const send = (n) => td.trackEvent('visits', {n});
</script>`,
  plausible: (endpoint) =>
    `<script>window.__plausible = true; const endpoint = '${endpoint}';</script><script src="/plausible.js"></script>`,
  snowplow: (endpoint) =>
    `<script>const endpoint = '${endpoint}';</script><script src="/snowplow.js"></script>`,
};

let cache;

/** Returns the website's scripts, by path. */
export const scripts = () =>
  (cache ??= {
    '/sluice.js': read('dist/sluice.js'),
    '/sluice.core.js': read('dist/sluice.core.js'),
    '/sluice.mjs': read('dist/sluice.mjs'),
    '/sluice.debug.js': read('dist/sluice.debug.js'),
    '/td.js': read('node_modules/td-js-sdk/dist/td.min.js'),
    '/plausible.js': bundled(`
      import { init, track } from '@plausible-analytics/tracker';
      init({ domain: 'shop.example', endpoint: endpoint + '/api/event', captureOnLocalhost: true, autoCapturePageviews: false, logging: false });
      window.send = (n) => track('visit', { props: { n } });`),
    '/snowplow.js': bundled(`
      import { newTracker, trackStructEvent } from '@snowplow/browser-tracker';
      newTracker('sp', endpoint, { appId: 'shop', contexts: { webPage: false, session: false } });
      window.send = (n) => trackStructEvent({ category: 'visit', action: 'visit', value: n });`),
  });

export class Site {
  /**
   * @param {import('./collector.js').Collector} collector
   */
  static async start(collector) {
    const site = new Site();
    site.server = createServer((request, response) => {
      const url = new URL(request.url, 'http://localhost');
      const script = scripts()[url.pathname];
      const [, tracker] = url.pathname.split('/');
      if (script) {
        // Browsers check the integrity of a cross-origin script only if its host allows reading it.
        response
          .setHeader('content-type', 'text/javascript')
          .setHeader('access-control-allow-origin', '*')
          .end(script);
      } else if (TRACKERS[tracker]) {
        const options = JSON.parse(url.searchParams.get('options') || '{}');
        const key = collector.keys[url.searchParams.get('account') || 'shop'];
        response.setHeader('content-type', 'text/html; charset=utf-8').end(`<!doctype html>
<title>${url.pathname}</title>
<link rel="icon" href="data:,">
${TRACKERS[tracker](collector.url, key, options)}
${site.bodies[url.pathname] || `<h1>${url.pathname}</h1>`}`);
      } else if (site.bodies[url.pathname]) {
        response
          .setHeader('content-type', 'text/html; charset=utf-8')
          .end(`<!doctype html><link rel="icon" href="data:,">${site.bodies[url.pathname]}`);
      } else response.writeHead(404).end();
    });
    await new Promise((done) => site.server.listen(0, '127.0.0.1', done));
    site.origin = `http://localhost:${site.server.address().port}`;
    return site;
  }

  constructor() {
    /** The content of pages, by path. */
    this.bodies = {};
  }

  url(tracker, page, parameters = {}) {
    const { options, ...rest } = parameters;
    const query = new URLSearchParams(rest);
    if (options) query.set('options', JSON.stringify(options));
    return `${this.origin}/${tracker}/${page}?${query}`;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
