/* How long the script keeps a slow page's thread busy: `make sdk-speed`. A busy machine makes all of it longer. */

import { launch } from './support/browser.js';
import { SLOWDOWN, measure } from './support/speed.js';
import { withSite } from './support/suite.js';

const browser = await launch('chrome');
await withSite(async (collector, site) => {
  site.bodies['/blank'] = '<h1>Blank</h1>';
  const context = await browser.createBrowserContext();
  const options = { endpoint: collector.url, key: collector.keys.shop };
  console.log(`milliseconds, with the processor slowed down ${SLOWDOWN} times; of 15 pages`);
  console.table(await measure(context, `${site.origin}/blank`, options));
});
await browser.close();
process.exit();
