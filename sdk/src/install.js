import { guard } from './safe.js';

/**
 * Carries out what the page's snippet gathered, and takes its place.
 *
 * @param {import('./sluice').Commands} commands
 */
export const install = (commands) => {
  const { q = [], version } = window.sluice || {};
  if (version) return; // the script is there twice
  const run = guard((/** @type {keyof typeof commands} */ name, /** @type {any[]} */ ...rest) =>
    /** @type {any} */ (commands[name])(...rest),
  );
  window.sluice = Object.assign(run, { version: VERSION });
  for (const args of q) run(.../** @type {[any]} */ (args));
};
