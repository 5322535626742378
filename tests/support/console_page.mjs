/* Looks at the console's page in a real browser, as people use it: `node console_page.mjs BROWSER SDK AXE URL…`.
   Prints what it found of each page, theme and width as JSON. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [browserName, sdk, axeFile, ...urls] = process.argv.slice(2);
const { launch } = await import(join(sdk, 'test/support/browser.js'));
const axe = readFileSync(axeFile, 'utf8');
const SHOTS = process.env.CONSOLE_SHOTS; // a folder for screenshots
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

async function check(page) {
  await page.evaluate(axe);
  const found = await page.evaluate((tags) => window.axe.run({ runOnly: tags }), TAGS);
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} (${node.any[0]?.message ?? ''})`).join('; ')}`);
}

/* Returns the names of what Tab reaches, and of that what shows no focus. */
async function tab(page) {
  const seen = [];
  const unseen = [];
  for (let step = 0; step < 80; step += 1) {
    await page.keyboard.press('Tab');
    const [name, shown] = await page.evaluate(() => {
      const at = document.activeElement;
      if (at === document.body || !at) return ['', true];
      const painted = at.matches('.choice input') ? at.nextElementSibling : at;
      const style = getComputedStyle(painted);
      return [at.ariaLabel || at.labels?.[0]?.textContent.trim() || at.textContent.trim().slice(0, 40) || at.id || at.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0];
    });
    if (!name || (step > 3 && name === seen[0])) break;
    seen.push(name);
    if (!shown) unseen.push(name);
  }
  return { seen, unseen };
}

/* Drops rows by keyboard alone, once after changing one's mind. */
async function drop(page) {
  const press = (key) => page.keyboard.press(key);
  const isOpen = () => page.evaluate(() => document.getElementById('confirm').open);
  const focus = () => page.evaluate(() => document.querySelector('[data-key^="drop "]').focus());
  await focus();
  await press('Enter');
  const opened = await isOpen();
  const violations = await check(page);
  await press('Enter'); // without the word, nothing happens
  const guarded = await isOpen();
  await press('Escape');
  const escaped = !(await isOpen());
  await focus();
  await press('Enter');
  await page.keyboard.type('drop');
  const answered = page.waitForResponse((answer) => new URL(answer.url()).pathname === '/drop');
  await press('Enter');
  const confirmed = !(await isOpen());
  await answered;
  return { opened, guarded, escaped, confirmed, violations };
}

const dark = { chrome: async (page, on) => page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: on ? 'dark' : 'light' }]) };
const themes = browserName === 'firefox' ? [[false], [true]] : [[false, true]];
const results = [];
for (const [group, of] of themes.entries()) {
  // Firefox is told by a preference, which it reads when it starts
  const browser = await launch(browserName, { 'layout.css.prefers-color-scheme.content-override': group ? 0 : 1 });
  for (const url of urls) {
    for (const isDark of of) {
      const page = await browser.newPage();
      page.setDefaultTimeout(120_000); // a busy machine takes its time
      const errors = [];
      page.on('pageerror', (error) => errors.push(`${error}`));
      page.on('console', (message) => { if (message.type() === 'error') errors.push(message.text()); });
      await dark[browserName]?.(page, isDark);
      await page.setViewport({ width: 1280, height: 900 });
      await page.goto(url);
      await page.waitForSelector('#events li');
      await page.waitForFunction(() => document.querySelectorAll('#tables tbody tr').length > 1);
      const isFirst = browserName === 'firefox' ? group === 0 : !isDark;
      await page.click('#events summary');
      for (const [width, height] of [[1280, 900], [390, 844]]) {
        await page.setViewport({ width, height });
        const found = { url: new URL(url).port, width, ...(await page.evaluate(() => ({
          isDark: matchMedia('(prefers-color-scheme: dark)').matches,
          overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        }))) };
        if (SHOTS) await page.screenshot({ path: join(SHOTS, `${browserName}-${found.isDark}-${width}-${urls.indexOf(url)}.png`), fullPage: true });
        results.push({ ...found, violations: await check(page), errors });
      }
      await page.setViewport({ width: 1280, height: 900 });
      if (isFirst) {
        Object.assign(results.at(-1), { drop: await drop(page), used: await use(page) });
        await page.reload(); // which needs no token in the address any more
        await page.waitForSelector('#rows-list button');
        results.at(-1).keyboard = await tab(page);
      }
      await page.close();
    }
  }
  await browser.close();
}

/* Filters and pauses. */
async function use(page) {
  const shown = () => page.evaluate(() => [...document.querySelectorAll('#events .where')].map((place) => place.textContent));
  const all = await shown();
  await page.evaluate(() => document.getElementById('filter-text').focus());
  await page.keyboard.type('sku=tea-03');
  const byColumn = await shown();
  await page.evaluate(() => { document.getElementById('filter-text').value = ''; });
  await page.evaluate(() => document.querySelector('[name=kind][value=bad]').focus());
  await page.keyboard.press(' ');
  const bad = await shown();
  await page.evaluate(() => document.getElementById('pause').focus());
  await page.keyboard.press(' ');
  const paused = await page.evaluate(() => [document.getElementById('pause').getAttribute('aria-pressed'), document.getElementById('stale').textContent]);
  const first = await page.evaluate(() => document.querySelector('#events .columns-of dt')?.textContent);
  return { all, byColumn, bad, paused, first };
}

console.log(JSON.stringify(results));
