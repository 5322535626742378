import { automatic } from './auto/automatic.js';
import { flush, leave, pump } from './delivery.js';
import { page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { guard, onLast } from './safe.js';
import { settings } from './settings.js';
import { forget, identify } from './visitor.js';

let begun = false;

/** Starts what is recorded by itself. */
const begin = guard(() => {
  if (FULL && !begun) {
    begun = true;
    automatic();
  }
});

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
      release();
      leave();
    });
    onLast(document, 'visibilitychange', send);
    onLast(window, 'pageshow', pump);
    onLast(window, 'online', pump);
    // Each in a task of its own, so that the page's work is never held up for long.
    setTimeout(begin);
    setTimeout(release);
    setTimeout(pump);
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
