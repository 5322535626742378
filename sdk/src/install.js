import { guard } from './safe.js';

/**
 * Carries out what the page's snippet gathered, and takes its place.
 *
 * @param {import('./sluice').Commands} commands
 */
export const install = (commands) => {
  const queue = window.sluice && window.sluice.q;
  if (typeof window.sluice == 'function' && !queue) return; // the script is there twice
  window.sluice = guard((/** @type {keyof typeof commands} */ name, /** @type {any[]} */ ...rest) =>
    /** @type {any} */ (commands[name])(...rest),
  );
  for (const args of queue || []) window.sluice(...args);
};
