/* The package, its types and docs/sdk.md match the code. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const folder = fileURLToPath(new URL('..', import.meta.url));
const read = (path) => readFileSync(folder + path, 'utf8');
const docs = read('../docs/sdk.md');
const types = read('src/sluice.d.ts');

/** Returns the members of an interface. */
const members = (name) =>
  [...types.match(new RegExp(`interface ${name} {([^]*?)\n}`))[1].matchAll(/^ {2}(\w+)[?(:<]/gm)].map(
    ([, member]) => member,
  );

/** Returns the names in the first column of a section's tables. */
const rows = (heading) =>
  [...docs.match(new RegExp(`\n## ${heading}\n([^]*?)\n## `))[1].matchAll(/^\| `(\w+)/gm)].map(
    ([, name]) => name,
  );

const sources = readdirSync(`${folder}src`, { recursive: true })
  .filter((file) => file.endsWith('.js'))
  .map((file) => read(`src/${file}`))
  .join('\n');

test('the scripts take at most 4,000 and 2,500 bytes after gzip', () => {
  const size = (file) => gzipSync(readFileSync(`${folder}dist/${file}`), { level: 9 }).length;
  assert.ok(size('sluice.js') <= 4000, `${size('sluice.js')} bytes`);
  assert.ok(size('sluice.core.js') <= 2500, `${size('sluice.core.js')} bytes`);
});

test('the scripts use no syntax that browsers of 2018 lack', () => {
  for (const file of ['sluice.js', 'sluice.core.js', 'sluice.mjs']) {
    assert.doesNotMatch(read(`dist/${file}`), /\?\.|\?\?|catch\{|\|\|=|\.at\(|#\w+=/);
  }
});

test('every command is documented', async () => {
  const { init, ...others } = await import('../dist/sluice.mjs');
  assert.deepEqual(['init', ...Object.keys(others)].sort(), members('Commands').sort());
  assert.deepEqual(rows('Commands'), members('Commands'));
});

test('every option is documented and used', () => {
  assert.deepEqual(rows('Options'), members('Options'));
  assert.deepEqual(
    [...new Set([...sources.matchAll(/\bsettings\.(?!js\b)(\w+)/g)].map(([, name]) => name))].sort(),
    members('Options').sort(),
  );
});

test('every automatic event is documented', () => {
  const kinds = [...types.match(/type Automatic = (.*);/)[1].matchAll(/\w+/g)].map(([kind]) => kind);
  const [, known] = sources.match(/const KINDS = {(.*)}/);
  assert.deepEqual(
    known
      .split(',')
      .map((kind) => kind.split(':')[0].trim())
      .sort(),
    kinds.sort(),
  );
  assert.deepEqual(rows('Automatic events').sort(), kinds.sort());
});

test('every column that the script adds is documented', () => {
  const columns = new Set(
    [
      ...sources.matchAll(/\b(td_[a-z]+(?:_[a-z]+)*|sluice_dropped|user_id|visible_ms|scroll_percent)\b/g),
    ].map(([, name]) => name),
  );
  assert.deepEqual(
    [...columns].filter((name) => !docs.includes(`\`${name}\``)),
    [],
  );
});

test('the snippet in the docs matches the built one', () => {
  const built = read('dist/snippet.html')
    .replace('{{endpoint}}', 'https://collect.example.com')
    .replace('{{key}}', 'shop.k1.…');
  assert.ok(
    docs.includes(built.replace('{{sdk}}', 'https://sdk.example.com').replace(/sha384-[^"]*/, 'sha384-…')),
  );
});

test('the package contains the build and nothing else', () => {
  const [{ files, version }] = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json'], {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  );
  assert.deepEqual(files.map(({ path }) => path).sort(), [
    'LICENSE',
    'README.md',
    'dist/LICENSE',
    'dist/manifest.json',
    'dist/sluice.core.js',
    'dist/sluice.d.ts',
    'dist/sluice.debug.js',
    'dist/sluice.js',
    'dist/sluice.mjs',
    'dist/snippet.html',
    'package.json',
  ]);
  assert.equal(JSON.parse(read('dist/manifest.json')).version, version);
});

test('the lock file names no registry', () => {
  assert.doesNotMatch(read('package-lock.json'), /"resolved"/);
});
