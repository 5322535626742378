/* Runs the same visits with the same failures with each tracker, in Chromium: `node test/compare.js [--write] [FAILURE]`.

   Prints a table, of a single failure if one is named, and with --write puts it into docs/internals/performance.md. */

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
/** How long a tracker has to deliver the remaining events. */
const PATIENCE_MS = 60_000;
const CALM_MS = 18_000;
/** How many failures are simulated at a time. */
const AT_ONCE = 2;

const docs = fileURLToPath(new URL('../../docs/internals/performance.md', import.meta.url));
const browser = await launch();

const play = (tracker, trouble, seed) =>
  withSite(async (collector, site) => {
    const context = await browser.createBrowserContext();
    const visitor = new Visitor(context, site, collector, tracker, seed);
    await TROUBLE[trouble](visitor);
    // After the failure the visitor returns, which gives each tracker a last chance to deliver.
    await sleep(2000);
    await visitor.send(await visitor.open('return'), 1);
    await until(
      () => outcome(visitor),
      ({ lost }) => lost == 0,
      PATIENCE_MS,
    );
    await sleep(CALM_MS);
    const result = await outcome(visitor);
    await context.close();
    return result;
  });

const sum = (results) =>
  results.reduce(
    (total, result) =>
      Object.fromEntries(Object.keys(result).map((name) => [name, (total[name] || 0) + result[name]])),
    {},
  );

const rows = [];
const named = process.argv.slice(2).filter((argument) => TROUBLE[argument]);
const troubles = named.length ? named : Object.keys(TROUBLE);
const playNext = async () => {
  for (let trouble = troubles.shift(); trouble; trouble = troubles.shift()) {
    const played = Object.keys(TRACKERS).map(async (tracker) => {
      const results = await Promise.all(SEEDS.map((seed) => play(tracker, trouble, seed)));
      return { trouble, tracker, ...sum(results) };
    });
    rows.push(...(await Promise.all(played)));
    console.error(trouble);
  }
};
await Promise.all(Array.from({ length: AT_ONCE }, playNext));
const order = Object.keys(TROUBLE);
rows.sort((one, other) => order.indexOf(one.trouble) - order.indexOf(other.trouble));
await browser.close();

const line = (cells) => `| ${cells.join(' | ')} |`;
const size = (path) => gzipSync(scripts()[path], { level: 9 }).length;
const names = Object.keys(TRACKERS);
const of = (tracker) => rows.filter((row) => row.tracker == tracker);
const totals = names.map((tracker) => sum(of(tracker).map(({ trouble, tracker: _, ...counts }) => counts)));
const missed = ({ lost, duplicated }) => `${lost}/${duplicated}`;
const failures = [...new Set(rows.map((row) => row.trouble))];
const rowsOf = (trouble) => names.map((tracker) => of(tracker).find((row) => row.trouble == trouble));
const table = [
  line(['failure', 'events', ...names.map((tracker) => TRACKERS[tracker][0])]),
  line(['---', '---:', ...names.map(() => '---:')]),
  ...failures.map((trouble) => line([trouble, rowsOf(trouble)[0].made, ...rowsOf(trouble).map(missed)])),
  line(['**total**', totals[0].made, ...totals.map(missed)]),
  ...['requests', 'bytes', 'preflights'].map((name) =>
    line([name, '', ...totals.map((total) => total[name].toLocaleString('en'))]),
  ),
  line(['script, gzip -9, bytes', '', ...names.map((tracker) => size(TRACKERS[tracker][1]).toLocaleString('en'))]),
].join('\n');

console.log(table);
if (process.argv.includes('--write')) {
  const text = readFileSync(docs, 'utf8');
  const marked = /(<!-- begin-sdk-comparison -->\n)[^]*(<!-- end-sdk-comparison -->)/;
  writeFileSync(
    docs,
    text.replace(marked, (_, begin, end) => `${begin}\n${table}\n\n${end}`),
  );
}
process.exit();
