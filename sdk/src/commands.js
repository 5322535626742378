import { automatic } from './auto/automatic.js';
import { flush, leave, pump } from './delivery.js';
import { page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { guard, onLast } from './safe.js';
import { settings } from './settings.js';
import { forget, identify } from './visitor.js';

let begun = false;

/** Starts what can wait until the page's own work is done, and keeps what there is. */
const begin = () => {
  if (FULL && !begun) {
    begun = true;
    guard(automatic)();
  }
  release();
};

/** Sends all that there is. */
const send = () => {
  release();
  return flush();
};

/**
 * The commands; they may throw.
 *
 * @type {import('./sluice').Commands}
 */
export const commands = {
  init(options) {
    if (settings.key) return;
    Object.assign(settings, options);
    onLast(window, 'pagehide', () => {
      begin();
      leave();
    });
    onLast(document, 'visibilitychange', send);
    onLast(window, 'pageshow', pump);
    onLast(window, 'online', pump);
    setTimeout(() => {
      begin();
      pump();
    });
  },
  page,
  track,
  set,
  identify(user) {
    release();
    identify(user);
  },
  consent(state) {
    decide(state == 'granted');
    release();
  },
  reset() {
    release();
    unset();
    forget();
  },
  flush: send,
};
