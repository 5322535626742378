/* The messages of the built scripts to developers. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Browser } from './support/model.js';

const DIST = new URL('../dist/', import.meta.url);
const SCRIPT = 'https://sdk.example/0.1.0/sluice.js';
const { files } = JSON.parse(readFileSync(new URL('manifest.json', DIST), 'utf8'));
const REFUSED = { status: 401, body: { error: { code: 'invalid_key', message: 'the key is not signed' } } };

/** Opens a page that can load the debug script; `loaded` has the script elements that were added. */
const open = (options, { script = 'sluice.js', stored = {} } = {}) => {
  const browser = new Browser({ script });
  for (const [key, text] of Object.entries(stored)) browser.stored.set(key, text);
  const loaded = [];
  const page = browser.open(options, ({ document }, page) =>
    Object.assign(document, {
      currentScript: { src: SCRIPT },
      createElement: () => ({}),
      head: {
        append: (element) => {
          loaded.push(element);
          browser.clock.setTimeout(
            () => page.evaluate(readFileSync(new URL('sluice.debug.js', DIST), 'utf8')),
            100,
            page,
          );
        },
      },
    }),
  );
  return { browser, page, loaded, told: () => page.warnings.map((line) => String(line[0])) };
};

/** Returns whether a line begins with this text. */
const says = (lines, start) => lines.some((line) => line.startsWith(`sluice: ${start}`));

for (const [name, options, stored] of [
  ['the option debug', { debug: true }, {}],
  ['an entry in localStorage', {}, { 'sluice.debug': '1' }],
]) {
  test(`${name} loads the debug script once, from the script's folder, and logs each event and its outcome`, async () => {
    const { browser, page, loaded, told } = open(options, { stored });
    page.sluice('track', 'visits', { n: 1 });
    page.sluice('page');
    await browser.clock.advance(2000);
    assert.deepEqual(loaded, [
      {
        src: 'https://sdk.example/0.1.0/sluice.debug.js',
        integrity: files['sluice.debug.js'].integrity,
        crossOrigin: '',
      },
    ]);
    for (const start of [
      'started with',
      'event for the table visits',
      'event for the table pageviews',
      '2 events delivered',
    ])
      assert.ok(says(told(), start), `${start}: ${told()}`);
  });
}

test('each rejection is logged with its code', async () => {
  const { browser, page, told } = open({ debug: true });
  const fates = [
    REFUSED,
    { status: 404, body: { message: 'Not Found' } },
    { unreadable: true },
    { status: 503, body: { error: { code: 'stream_unavailable', message: 'later' } } },
    { status: 400, body: { accepted: 0, rejected: [{ index: 0, code: 'invalid_table', message: 'no such name' }] } },
    { status: 403, body: { message: 'Forbidden' } },
    { status: 200, body: { status: 'ok' } },
    { status: 403, headers: { 'x-sluice-error': 'revoked_key' }, body: { error: { code: 'revoked_key', message: 'no' } } },
  ];
  browser.server.decide = () => fates.shift() || 'take';
  page.sluice('track', 'visits');
  await browser.clock.advance(60_000);
  page.sluice('track', 'visits');
  await browser.clock.advance(60_000);
  for (const line of [
    'invalid_key: the key is not signed. ',
    '404: There is no Sluice at this URL. Check the option endpoint. 1 events are kept and sent again.',
    'no_answer: ',
    'stream_unavailable: later. 1 events are kept and sent again.',
    'invalid_table: event rejected: no such name. ',
    '0 events delivered',
    '403: 1 events are kept and sent again.',
    '200: This response is not from Sluice. Check the option endpoint. 1 events are kept and sent again.',
    'revoked_key: no. 1 events are dropped.',
  ])
    assert.ok(says(told(), line), `${line}: ${told().join('\n')}`);
});

test('an event that is too large is logged when it is dropped', async () => {
  for (const debug of [true, false]) {
    const { browser, page } = open({ debug });
    page.sluice('track', 'visits', { text: 'x'.repeat(300_000) });
    await browser.clock.advance(2000);
    assert.ok(
      page.warnings.some((line) => line.slice(0, 2).join(' ').match(/too_large/)),
      `debug: ${debug}`,
    );
  }
});

test('a consent other than granted and denied is logged', async () => {
  const { browser, page, told } = open({ debug: true });
  page.sluice('consent', 'granted');
  page.sluice('consent', true);
  await browser.clock.advance(2000);
  assert.ok(says(told(), 'consent granted'), told());
  assert.ok(says(told(), 'odd_consent: '), told());
});

test('unknown commands and invalid options are logged by name', async () => {
  const { browser, page, told } = open({ debug: true, key: '', endpiont: 'x', id: 'cookies', auto: ['pages'] });
  page.sluice('trak', 'visits');
  page.sluice('track', 'visits', 'Home');
  await browser.clock.advance(2000);
  const lines = told();
  assert.ok(says(lines, 'missing_option: init needs the option "key"'), lines);
  assert.ok(says(lines, 'unknown_option: there is no option "endpiont"'), lines);
  for (const option of ['id', 'auto']) assert.ok(says(lines, `odd_option: the value of the option "${option}"`), lines);
  assert.ok(!says(lines, 'odd_option: the value of the option "endpoint"'), lines);
  assert.ok(says(lines, 'unknown_command: there is no command "trak"'), lines);
  assert.ok(says(lines, 'odd_columns: each letter became a column'), lines);
});

test('an event that is not recorded for lack of consent is logged', async () => {
  const { browser, page, told } = open({ debug: true });
  page.sluice('consent', 'denied');
  page.sluice('track', 'visits');
  await browser.clock.advance(2000);
  assert.ok(says(told(), 'not recorded: an event for the table visits'), told());
});

test('the debug script knows every option and command', async () => {
  const types = readFileSync(new URL('sluice.d.ts', DIST), 'utf8');
  const texts = readFileSync(new URL('../src/sluice.debug.js', import.meta.url), 'utf8');
  for (const [name, pattern] of [
    ['Options', /const OPTIONS = {([^]*?)\n};/],
    ['Commands', /const COMMANDS = \[(.*)\]/],
  ]) {
    const [, members] = types.match(new RegExp(`interface ${name} {([^]*?)\n}`));
    const [, known] = texts.match(pattern);
    for (const [, member] of members.matchAll(/^ {2}(\w+)[?(:]/gm)) assert.match(known, new RegExp(`\\b${member}\\b`));
  }
});

test('without debug mode only the first permanent error is logged, and temporary failures are not', async () => {
  const { browser, page, loaded } = open({});
  const fates = [503, { unreadable: true }, 429, REFUSED, REFUSED, 'take'];
  browser.server.decide = () => fates.shift() || 'take';
  page.sluice('track', 'visits');
  await browser.clock.advance(3000);
  assert.deepEqual(page.warnings, []);
  await browser.clock.advance(120_000);
  page.sluice('trak');
  assert.deepEqual(
    page.warnings.map((line) => line.slice(0, 4)),
    [['sluice', 'answer', 401, REFUSED.body.error]],
  );
  assert.deepEqual(loaded, []);
});

test('without debug mode no column of an event is printed', async () => {
  for (const text of ['secret', 'secret'.repeat(50_000)]) {
    const { browser, page } = open({});
    browser.server.decide = () => REFUSED;
    page.sluice('track', 'visits', { text });
    await browser.clock.advance(3000);
    assert.equal(page.warnings.length, 1);
    assert.doesNotMatch(JSON.stringify(page.warnings), /secret/);
  }
});

test('without debug mode an unknown command or a missing key is logged', async () => {
  for (const [options, command, code] of [
    [{}, 'trak', 'unknown_command'],
    [{ key: '' }, 'page', 'init'],
  ]) {
    const { browser, page } = open(options);
    page.sluice(command);
    await browser.clock.advance(2000);
    assert.deepEqual(
      page.warnings.map(([, told]) => told),
      [code],
    );
  }
});

test('the core script logs codes without messages', async () => {
  const { browser, page, loaded } = open({ debug: true }, { script: 'sluice.core.js' });
  browser.server.decide = () => REFUSED;
  page.sluice('page');
  await browser.clock.advance(2000);
  assert.deepEqual(
    page.warnings.map(([, told]) => told),
    ['init', 'event', 'answer'],
  );
  assert.deepEqual(loaded, []);
});
