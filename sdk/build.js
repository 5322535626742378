/* Builds dist/ from src/ and measures it: `node build.js`. Exits with 1 if a script is too large. */

import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildSync } from 'esbuild';
import { minify } from 'terser';

const here = fileURLToPath(new URL('.', import.meta.url));
const { version } = JSON.parse(readFileSync(`${here}package.json`, 'utf8'));

/* `limit` is in bytes after gzip -9. The debug script has none because only developers load it, and the module has none because
   no page loads it directly. The debug script comes first, because the others contain its hash. */
const SCRIPTS = [
  { file: 'sluice.debug.js', entry: 'sluice.debug.js', format: 'iife' },
  { file: 'sluice.js', entry: 'script.js', format: 'iife', full: true, limit: 4000 },
  { file: 'sluice.core.js', entry: 'script.js', format: 'iife', full: false, limit: 2500 },
  { file: 'sluice.mjs', entry: 'module.js', format: 'esm', full: true },
];

rmSync(`${here}dist`, { recursive: true, force: true });
mkdirSync(`${here}dist`);

const files = {};
for (const { file, entry, format, full, limit } of SCRIPTS) {
  const bundle = buildSync({
    entryPoints: [`${here}src/${entry}`],
    bundle: true,
    format,
    target: 'es2018',
    external: ['./sluice.debug.js'],
    supported: { 'dynamic-import': true }, // used only by the module, in debug mode
    define: {
      VERSION: JSON.stringify(`sluice ${version}`),
      FULL: String(full),
      DEBUG_INTEGRITY: JSON.stringify(files['sluice.debug.js']?.integrity || ''),
    },
    tsconfigRaw: {},
    write: false,
  }).outputFiles[0].text;
  const { code } = await minify(bundle, { ecma: 2018, module: format == 'esm', compress: { passes: 4 } });
  const content = Buffer.from(`${code}\n`);
  writeFileSync(`${here}dist/${file}`, content);
  const gzip = gzipSync(content, { level: 9 }).length;
  const hash = full == undefined ? 'sha256' : 'sha384'; // the others contain the debug script's, so it is the short one
  const integrity = `${hash}-${createHash(hash).update(content).digest('base64')}`;
  files[file] = { path: `${version}/${file}`, bytes: content.length, gzip, integrity };
  const allowed = limit === undefined ? '' : `, ${limit} allowed`;
  console.log(`${file.padEnd(15)} ${content.length} bytes, ${gzip} after gzip -9${allowed}`);
  if (gzip > limit) process.exitCode = 1;
}

copyFileSync(`${here}src/sluice.d.ts`, `${here}dist/sluice.d.ts`);
copyFileSync(`${here}../LICENSE`, `${here}dist/LICENSE`);

/* The snippet for pages. Whoever hosts the SDK fills in the endpoint, the script's URL and the write key. */
const { path, integrity } = files['sluice.js'];
const snippet = readFileSync(`${here}src/snippet.html`, 'utf8');
writeFileSync(
  `${here}dist/snippet.html`,
  snippet.replace('{{path}}', path).replace('{{integrity}}', integrity),
);
writeFileSync(`${here}dist/manifest.json`, `${JSON.stringify({ version, files }, null, 2)}\n`);
