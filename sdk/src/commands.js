import { automatic } from './auto/automatic.js';
import { flush, leave, pump } from './delivery.js';
import { page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { guard, onLast } from './safe.js';
import { settings } from './settings.js';
import { tell } from './tell.js';
import { forget, identify } from './visitor.js';

let started = false;

/** Starts automatic recording. */
const start = guard(() => {
  if (FULL && !started) {
    started = true;
    automatic();
  }
});

/** Sends everything recorded so far. */
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
    tell(!settings.key || !settings.endpoint, 'init', options);
    onLast(window, 'pagehide', () => {
      start();
      release();
      leave();
    });
    onLast(document, 'visibilitychange', send);
    onLast(window, 'pageshow', pump);
    onLast(window, 'online', pump);
    // Each in its own task, so that the page is never blocked for long.
    setTimeout(start);
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
