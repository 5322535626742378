import { guard } from './safe.js';

/**
 * Carries out what the page's snippet gathered, and takes its place.
 *
 * @param {import('./sluice').Commands} commands
 */
export const install = (commands) => {
  const { q = [], version } = window.sluice || {};
  if (version) return; // the script is there twice
  /** @type {typeof window.sluice} */
  const run = guard((/** @type {keyof typeof commands} */ name, /** @type {any[]} */ ...rest) =>
    /** @type {any} */ (commands[name])(...rest),
  );
  run.version = VERSION;
  window.sluice = run;
  for (const args of q) run(...args);
};
