/* Real browsers, found where Debian installs them. */

import { existsSync } from 'node:fs';
import puppeteer from 'puppeteer-core';

const BROWSERS = {
  chrome: {
    paths: [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'],
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  },
  firefox: { paths: [process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox'], args: [] },
};

/** Returns the path of the browser, or undefined if it is not installed. */
export const pathOf = (name) => BROWSERS[name].paths.find((path) => path && existsSync(path));

export const launch = (name = 'chrome', extraPrefsFirefox = {}) =>
  puppeteer.launch({
    extraPrefsFirefox,
    browser: name,
    executablePath: pathOf(name),
    args: BROWSERS[name].args,
    headless: true,
  });

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Calls `look` until `good` accepts its result or the time is up, and returns the last result. */
export const until = async (look, good, ms = 30_000) => {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (good(found) || Date.now() > end) return found;
    await sleep(50);
  }
};
