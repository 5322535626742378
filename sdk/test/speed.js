/* How long the script blocks the main thread on a slow device: `make sdk-speed`. A busy machine makes all times longer. */

import { launch } from './support/browser.js';
import { SLOWDOWN, measure } from './support/speed.js';
import { withSite } from './support/suite.js';

const browser = await launch('chrome');
await withSite(async (collector, site) => {
  site.bodies['/blank'] = '<h1>Blank</h1>';
  const context = await browser.createBrowserContext();
  const options = { endpoint: collector.url, key: collector.keys.shop };
  const figures = await measure(context, `${site.origin}/blank`, options);
  console.log(`Milliseconds, with the processor slowed down ${SLOWDOWN} times; a quarter and half of 15 pages took no longer:`);
  console.table(
    Object.fromEntries(
      Object.entries(figures).map(([name, { quarter, half }]) => [
        name,
        { quarter: +quarter.toFixed(1), half: +half.toFixed(1) },
      ]),
    ),
  );
});
await browser.close();
process.exit();
