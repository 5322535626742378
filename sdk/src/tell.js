import { guard } from './safe.js';
import { settings } from './settings.js';
import { read } from './storage.js';

/**
 * What is told in debug mode. The debug script takes it over: it prints what is in it and whatever is pushed later.
 *
 * @type {unknown[][] | undefined}
 */
let log;
/** @type {unknown} */
let warned;

/** How the build loads the debug script. */
export const debug = { load: () => {} };

/**
 * Tells a developer what happens, if the page is being debugged. Otherwise only the first mistake is shown.
 *
 * @param {unknown} isMistake Whether events are lost unless somebody corrects the page or the server.
 * @param {...unknown} what A code, then details.
 */
export const tell = guard((/** @type {unknown} */ isMistake, /** @type {unknown[]} */ ...what) => {
  const debugs = settings.debug || read('sluice.debug');
  if (FULL && debugs) {
    if (!log) {
      log = window.sluiceLog = [];
      debug.load();
    }
    log.push(what);
  } else if (debugs || (isMistake && !warned)) {
    warned = isMistake;
    console.warn('sluice', ...what);
  }
});
