import { guard } from './safe.js';
import { settings } from './settings.js';
import { read } from './storage.js';

/**
 * The messages of debug mode. The debug script takes this over: it prints the messages in it, and those pushed later.
 *
 * @type {unknown[][] | undefined}
 */
let log;
/** @type {unknown} */
let warned;

/** Loads the debug script; the module and the script set how. */
export const debug = { load: () => {} };

/**
 * Tells a developer what happens if the page is being debugged. Otherwise only the first mistake is shown.
 *
 * @param {unknown} isMistake Whether events are lost unless somebody fixes the page or the server.
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
  } else if ((!FULL && debugs) || (isMistake && !warned)) {
    warned = isMistake;
    console.warn('sluice', ...what.slice(0, 3)); // not the events, which come last: services for monitoring record what pages print
  }
});
