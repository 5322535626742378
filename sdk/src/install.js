import { guard } from './safe.js';
import { tell } from './tell.js';

/**
 * Runs the commands that the page's snippet queued, and replaces the snippet's function.
 *
 * @param {import('./sluice').Commands} commands
 */
export const install = (commands) => {
  const { q = [], version } = window.sluice || {};
  if (version) return; // the script was loaded twice
  /** @type {typeof window.sluice} */
  const run = guard((/** @type {keyof typeof commands} */ name, /** @type {any[]} */ ...rest) =>
    commands[name] ? /** @type {any} */ (commands[name])(...rest) : tell(true, 'unknown_command', name),
  );
  run.version = VERSION;
  window.sluice = run;
  for (const args of q) run(...args);
};
