import { flush, leave, pump } from './delivery.js';
import { page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { guard, on } from './safe.js';
import { settings } from './settings.js';
import { forget, identify } from './visitor.js';

/** @typedef {import('./sluice').Options} Options */

/**
 * Returns the commands.
 *
 * @param {() => void} [automatic] Starts what events come by themselves.
 * @returns {import('./sluice').Commands}
 */
export const commands = (automatic) => ({
  init: guard((options) => {
    if (settings.key) return;
    Object.assign(settings, options);
    if (automatic) guard(automatic)();
    release();
    on(window, 'pagehide', leave);
    on(window, 'pageshow', pump);
    on(window, 'online', pump);
    on(document, 'visibilitychange', flush);
    pump();
  }),
  page: guard(page),
  track: guard(track),
  set: guard(set),
  identify: guard(identify),
  consent: guard((state) => {
    decide(state == 'granted');
    release();
  }),
  reset: guard(() => {
    unset();
    forget();
  }),
  flush: guard(flush),
});
