/* The same visits in the same trouble with each tracker, in real Chromium: `node test/compare.js [--write]`.

   Prints a table, and with --write puts it into docs/sdk.md. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { launch, sleep, until } from './support/browser.js';
import { scripts } from './support/site.js';
import { withSite } from './support/suite.js';
import { TROUBLE, Visitor, outcome } from './support/trouble.js';

const SEEDS = [1, 2, 3];
const TRACKERS = {
  sluice: ['Sluice', '/sluice.js'],
  'td-js-sdk': ['td-js-sdk 4.4.3', '/td.js'],
  plausible: ['Plausible 0.4.6', '/plausible.js'],
  snowplow: ['Snowplow 4.10.1', '/snowplow.js'],
};
/** How long a tracker may take to deliver what is left, and after which time nothing more is expected. */
const PATIENCE_MS = 60_000;
const CALM_MS = 20_000;

const docs = fileURLToPath(new URL('../../docs/sdk.md', import.meta.url));
const browser = await launch();

const play = (tracker, trouble, seed) =>
  withSite(async (collector, site) => {
    const context = await browser.createBrowserContext();
    const visitor = new Visitor(context, site, collector, tracker, seed);
    await TROUBLE[trouble](visitor);
    await until(() => outcome(visitor), ({ lost }) => lost == 0, PATIENCE_MS);
    await sleep(CALM_MS);
    const result = await outcome(visitor);
    await context.close();
    return result;
  });

const sum = (results) =>
  results.reduce((total, result) => Object.fromEntries(Object.keys(result).map((name) => [name, (total[name] || 0) + result[name]])), {});

const rows = [];
for (const trouble of Object.keys(TROUBLE)) {
  const found = await Promise.all(
    Object.keys(TRACKERS).map(async (tracker) => [
      tracker,
      sum(await Promise.all(SEEDS.map((seed) => play(tracker, trouble, seed)))),
    ]),
  );
  for (const [tracker, result] of found) rows.push({ trouble, tracker, ...result });
  console.error(trouble);
}
await browser.close();

const line = (cells) => `| ${cells.join(' | ')} |`;
const columns = ['made', 'delivered', 'lost', 'doubled', 'requests', 'bytes', 'preflights'];
const size = (path) => gzipSync(scripts()[path], { level: 9 }).length;
const table = [
  line(['trouble', 'tracker', ...columns]),
  line(['---', '---', ...columns.map(() => '---:')]),
  ...rows.map((row, index) =>
    line([
      index % Object.keys(TRACKERS).length ? '' : row.trouble,
      TRACKERS[row.tracker][0],
      ...columns.map((name) => row[name].toLocaleString('en')),
    ]),
  ),
  ...Object.keys(TRACKERS).map((tracker, index) => {
    const total = sum(rows.filter((row) => row.tracker == tracker).map(({ trouble, tracker: _, ...counts }) => counts));
    return line([index ? '' : '**all**', TRACKERS[tracker][0], ...columns.map((name) => total[name].toLocaleString('en'))]);
  }),
  '',
  `Script sizes after gzip -9: ${Object.values(TRACKERS).map(([name, path]) => `${name} ${size(path).toLocaleString('en')} bytes`).join(', ')}.`,
].join('\n');

console.log(table);
if (process.argv.includes('--write')) {
  const text = readFileSync(docs, 'utf8');
  const [before, rest] = text.split('<!-- comparison -->\n');
  writeFileSync(docs, `${before}<!-- comparison -->\n\n${table}\n\n<!-- end -->${rest.split('<!-- end -->').slice(1).join('<!-- end -->')}`);
}
process.exit();
