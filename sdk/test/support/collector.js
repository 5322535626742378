/* The real ingest behind the local gateway, in its own process: tests/support/collector.py. */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const venv = `${root}.venv/bin/python`;

export class Collector {
  /**
   * @param {...string} origins The origins that may read responses; default: all.
   */
  static async start(...origins) {
    const python = process.env.SLUICE_PYTHON || (existsSync(venv) ? venv : 'python3');
    const child = spawn(python, ['-m', 'tests.support.collector', ...origins], {
      cwd: root,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [line] = await Promise.race([
      new Promise((resolve) => createInterface(child.stdout).once('line', (text) => resolve([text]))),
      new Promise((_, reject) => child.once('exit', () => reject(new Error('the collector did not start')))),
    ]);
    return new Collector(child, JSON.parse(line));
  }

  constructor(child, { url, keys }) {
    this.child = child;
    this.url = url;
    this.keys = keys;
  }

  /** Starts a fault; `none` ends it. */
  async fault(name) {
    const { status } = await fetch(`${this.url}/-/fault`, { method: 'POST', body: name });
    if (status != 200) throw new Error(`no such fault: ${name}`);
  }

  async events() {
    return (await fetch(`${this.url}/-/events`)).json();
  }

  async requests() {
    return (await fetch(`${this.url}/-/requests`)).json();
  }

  reset() {
    return fetch(`${this.url}/-/reset`, { method: 'POST' });
  }

  async stop() {
    this.child.stdin.end();
    this.child.kill();
  }
}
