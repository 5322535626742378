import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { named, sleep, suite } from './support/suite.js';
import { until } from './support/browser.js';

const manifest = JSON.parse(readFileSync(new URL('../dist/manifest.json', import.meta.url), 'utf8'));
const AUTO = { options: { auto: true } };

const click = (tab, selector) => tab.evaluate((which) => document.querySelector(which).click(), selector);

suite('chrome', (visit) => {
  visit(
    'a view is recorded for the page and for each URL that its scripts navigate to',
    async (visitor, collector) => {
      const tab = await visitor.open();
      await tab.evaluate(async () => {
        const pause = () => new Promise((done) => setTimeout(done, 20));
        history.pushState(null, '', '/sluice/second?a=1');
        document.title = 'Second';
        await pause();
        history.replaceState({ scroll: 1 }, '', location.href);
        location.hash = 'part';
        await pause();
        history.replaceState(null, '', '/sluice/third');
        await pause();
        history.back();
      });
      const views = await named(collector, 'pageviews', 4);
      await sleep(500);
      assert.deepEqual(
        views.map(({ td_path, td_title, td_referrer }) => [
          td_path,
          td_title,
          td_referrer.replace(/^.*\/sluice/, ''),
        ]),
        [
          ['/sluice/home', '/sluice/home', ''],
          ['/sluice/second', 'Second', views[0].td_url.replace(/^.*\/sluice/, '')],
          ['/sluice/third', 'Second', '/second?a=1'],
          ['/sluice/second', 'Second', '/third'],
        ],
      );
      assert.equal((await named(collector, 'pageviews', 4)).length, 4);
    },
    AUTO,
  );

  visit(
    'clicks, forms and errors are recorded, without anything that a visitor typed',
    async (visitor, collector, site) => {
      site.bodies['/sluice/home'] = `
        <a id="out" href="http://127.0.0.1:1/else?x=1">Else<b id="inner">where</b></a>
        <a id="in" href="/sluice/list">List</a>
        <a id="file" href="/price-list.pdf">Prices</a>
        <a id="saved" href="/sluice/list" download>Save</a>
        <a id="mail" href="mailto:a@b.example">Mail</a>
        <button id="buy" data-sluice-event="buy" data-sluice-item-id="k7" data-sluice-price="7800">Buy <i id="icon">!</i></button>
        <form id="search" action="/find"><input name="id" value="secret"><input name="q" value="secret"></form>
        <i id="failing" onfocus="Promise.reject(new Error('another one')); throw new Error('a mistake of the page')"></i>
        <script>for (const type of ['click', 'auxclick']) document.addEventListener(type, (event) => {
          event.stopPropagation();
          event.preventDefault();
        }, true)</script>`;
      const tab = await visitor.open();
      for (const selector of ['#inner', '#in', '#file', '#saved', '#mail', '#icon'])
        await click(tab, selector);
      for (const button of ['middle', 'right']) await tab.click('#out', { button });
      await tab.evaluate(() => {
        const form = document.querySelector('form');
        form.addEventListener('submit', (event) => event.preventDefault());
        form.requestSubmit();
        document.querySelector('#failing').dispatchEvent(new Event('focus'));
      });
      await named(collector, 'error', 2);
      const events = (await collector.events()).filter(({ event }) => event);
      const columns = ['event', 'href', 'text', 'item_id', 'price', 'form', 'action', 'message'];
      assert.deepEqual(
        events
          .map((event) => columns.map((name) => event[name]).filter(Boolean))
          .map(([name, ...rest]) => [name, ...rest.map((text) => text.replace(/^.*\/sluice/, ''))]),
        [
          ['outbound', 'http://127.0.0.1:1/else?x=1', 'Elsewhere'],
          ['download', `${site.origin}/price-list.pdf`, 'Prices'],
          ['download', '/list', 'Save'],
          ['buy', 'k7', '7800'],
          ['outbound', 'http://127.0.0.1:1/else?x=1', 'Elsewhere'],
          ['submit', 'search', '/find'],
          ['error', 'Uncaught Error: a mistake of the page'],
          ['error', 'Error: another one'],
        ],
      );
      assert.ok(!JSON.stringify(await collector.requests()).includes('secret'));
      visitor.faults = []; // the page's own errors
    },
    AUTO,
  );

  visit(
    'a leave event has the visible time and the scroll depth of its page',
    async (visitor, collector, site) => {
      site.bodies['/sluice/home'] = '<div style="height: 5000px">long</div>';
      const tab = await visitor.open();
      await sleep(300);
      await tab.evaluate(() => scrollTo(0, 1900));
      await sleep(300);
      await tab.evaluate(() => history.pushState(null, '', '/sluice/second'));
      await sleep(300);
      await visitor.open('list', tab);
      const leaves = await named(collector, 'leave', 2);
      const [first, second] = ['home', 'second'].map((page) =>
        leaves.find(({ td_path }) => td_path == `/sluice/${page}`),
      );
      assert.ok(first.visible_ms >= 500 && first.visible_ms < 30_000, `${first.visible_ms} ms`);
      assert.ok(first.scroll_percent > 40 && first.scroll_percent < 60, `${first.scroll_percent} %`);
      assert.ok(second.visible_ms >= 250 && second.visible_ms < 30_000, `${second.visible_ms} ms`);
    },
    AUTO,
  );

  visit(
    'a page restored from the back/forward cache continues where it stopped',
    async (visitor, collector) => {
      const tab = await visitor.open('home');
      await tab.evaluate(() => addEventListener('pageshow', (event) => (window.persisted = event.persisted)));
      await visitor.send(tab, 3);
      await visitor.open('list', tab);
      await tab.goBack({ waitUntil: 'domcontentloaded' });
      assert.equal(await until(() => tab.evaluate(() => window.persisted), Boolean), true);
      await visitor.send(tab, 3);
      const visits = await named(collector, 'visits', visitor.made);
      assert.deepEqual(
        visits.map(({ n }) => n).sort(),
        Array.from({ length: visitor.made }, (_, index) => index + 1),
      );
      const views = await named(collector, 'pageviews', 3);
      assert.deepEqual(views.map(({ td_path }) => td_path).sort(), [
        '/sluice/home',
        '/sluice/home',
        '/sluice/list',
      ]);
      await sleep(500);
      const leaves = await named(collector, 'leave', 2);
      assert.ok(leaves.every(({ visible_ms }) => visible_ms < 60_000));
    },
    AUTO,
  );

  visit('events of one visitor arrive even if cookies are blocked', async (visitor, collector) => {
    visitor.options = { id: 'cookie' };
    const tab = await visitor.tab();
    const session = await tab.createCDPSession();
    await session.send('Emulation.setDocumentCookieDisabled', { disabled: true });
    await visitor.open('home', tab);
    await visitor.send(tab, 1);
    await sleep(1100);
    await visitor.send(tab, 1);
    const events = await named(collector, 'visits', 2);
    assert.equal(new Set(events.map(({ td_client_id }) => td_client_id)).size, 1);
  });

  visit('the cookie identifies the visitor on the next page', async (visitor, collector) => {
    visitor.options = { id: 'cookie' };
    const tab = await visitor.open();
    await visitor.sendAndGo(tab, 'list');
    await visitor.send(tab, 1);
    const events = await named(collector, 'visits', visitor.made);
    assert.equal(new Set(events.map(({ td_client_id }) => td_client_id)).size, 1);
    assert.ok((await tab.evaluate(() => document.cookie)).includes(`_td=${events[0].td_client_id}`));
  });

  visit('the script runs with its integrity hash and a strict content security policy', async (visitor, collector, site) => {
    site.bodies['/strict'] =
      `<meta http-equiv="content-security-policy" content="default-src 'none'; script-src 'self'; connect-src ${collector.url}">
      <script src="/sluice.js" integrity="${manifest.files['sluice.js'].integrity}" crossorigin="anonymous"></script>`;
    const tab = await visitor.tab();
    await tab.goto(`${site.origin}/strict`);
    await tab.evaluate(
      (endpoint, key) => {
        sluice('init', { endpoint, key });
        sluice('track', 'visits', { n: 1 });
      },
      collector.url,
      collector.keys.shop,
    );
    assert.equal((await named(collector, 'visits')).length, 1);
  });

  const SCRIPT = `<script src="/sluice.js"></script>`;
  const MODULE = `<script type="module">import { init, track } from '/sluice.mjs'; Object.assign(window, { init, track })</script>`;
  for (const [code, build, load, key, table] of [
    ['invalid_key', 'script', SCRIPT, 'shop.k1.forged', 'visits'],
    ['invalid_key', 'module', MODULE, 'shop.k1.forged', 'visits'],
    ['invalid_table', 'script', SCRIPT, undefined, 'Bad Table'],
  ]) {
    visit(`debug mode reports the ingest's ${code}, with the ${build}`, async (visitor, collector, site) => {
      site.bodies['/debug'] = load;
      const tab = await visitor.tab();
      const lines = [];
      tab.on('console', (message) => lines.push(message.text()));
      await tab.goto(`${site.origin}/debug`);
      await tab.evaluate(
        (endpoint, key, table) => {
          const run = window.sluice || ((name, ...rest) => window[name](...rest));
          run('init', { endpoint, key, debug: true });
          run('track', table, { n: 1 });
        },
        collector.url,
        key || collector.keys.shop,
        table,
      );
      const codes = await until(
        () => lines.map((line) => line.split(':')[1]),
        (found) => found.includes(` ${code}`),
      );
      assert.ok(codes.includes(` ${code}`), lines.join('\n'));
      assert.ok(codes.some((text) => text.startsWith(` event for the table ${table}`)), lines.join('\n'));
    });
  }

  visit("a page has the columns that Treasure Data's own SDK sends", async (visitor, collector, site) => {
    for (const tracker of ['sluice', 'td-js-sdk']) {
      site.bodies[`/${tracker}/home`] = '<meta name="description" content="Kettles"><h1>Home</h1>';
    }
    const query = { utm_source: 'mail', utm_medium: 'm', utm_campaign: 'c' };
    const [ours, theirs] = [await visitor.tab(), await visitor.tab()];
    await ours.goto(site.url('sluice', 'home', query));
    await ours.evaluate(() => send(1));
    await theirs.goto(site.url('td-js-sdk', 'home', query));
    await theirs.evaluate(() => td.trackPageview('visits'));
    const [mine, other] = await until(
      async () => {
        const events = await collector.events();
        return [events.find(({ table }) => table == 'visits'), events.find(({ table }) => table == 'other')];
      },
      (found) => found.every(Boolean),
    );
    const { table, td_version, td_user_agent, ...columns } = other;
    const known = Object.fromEntries(
      Object.keys(columns).map((name) => [name, mine[name]?.replace?.('/sluice/', '/td-js-sdk/')]),
    );
    assert.deepEqual(known, columns);
    assert.ok(td_user_agent.startsWith(mine.td_user_agent));
  });
});
