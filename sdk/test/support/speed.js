/* How long the script blocks the main thread, in Chromium with its processor slowed down six times. */

import { readFileSync } from 'node:fs';

export const SLOWDOWN = 6;
const script = readFileSync(new URL('../../dist/sluice.js', import.meta.url), 'utf8');

const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.floor(values.length * share)];

/**
 * Measures new pages.
 *
 * @returns {Promise<Record<'load' | 'init' | 'event' | 'longest', {quarter: number, half: number}>>} Milliseconds that a
 *   quarter and half of the pages do not exceed: evaluating the script, `init` with everything automatic, one event, and
 *   the longest task. Other work on the machine makes all times longer.
 */
export const measure = async (context, url, { endpoint, key }, pages = 15) => {
  const found = { load: [], init: [], event: [], longest: [] };
  for (let count = 0; count < pages; count += 1) {
    const tab = await context.newPage();
    await tab.goto(url);
    await tab.emulateCPUThrottling(SLOWDOWN);
    const times = await tab.evaluate(
      async (source, options) => {
        const tasks = [];
        new PerformanceObserver((list) =>
          tasks.push(...list.getEntries().map(({ duration }) => duration)),
        ).observe({
          type: 'longtask',
        });
        const pause = () => new Promise((done) => setTimeout(done, 100));
        const timed = (run) => {
          const start = performance.now();
          run();
          return performance.now() - start;
        };
        await pause();
        tasks.length = 0;
        const element = document.createElement('script');
        element.textContent = source;
        const load = timed(() => document.head.append(element));
        await pause();
        const init = timed(() => sluice('init', options));
        await pause();
        const events = [];
        for (let round = 0; round < 10; round += 1) {
          for (let n = 0; n < 3; n += 1)
            events.push(timed(() => sluice('track', 'visits', { n, text: 'a kettle of iron' })));
          await pause();
        }
        return { load, init, events, longest: Math.max(0, ...tasks) };
      },
      script,
      { endpoint, key, auto: true },
    );
    found.load.push(times.load);
    found.init.push(times.init);
    found.event.push(...times.events);
    found.longest.push(times.longest);
    await tab.close();
  }
  return Object.fromEntries(
    Object.entries(found).map(([name, values]) => [
      name,
      { quarter: quantile(values, 0.25), half: quantile(values, 0.5) },
    ]),
  );
};
