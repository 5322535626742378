import { automatic } from './auto/automatic.js';
import { flush, leave, pump, resume } from './delivery.js';
import { page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { guard, onLast } from './safe.js';
import { settings } from './settings.js';
import { forgetDeleted } from './storage.js';
import { tell } from './tell.js';
import { forget, identify } from './visitor.js';

let started = false;

/** Starts automatic recording; the core script has none. */
const start = /* @__PURE__ */ guard(() => {
  if (!started) {
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
      if (FULL) start();
      release();
      leave();
    });
    onLast(document, 'visibilitychange', send);
    onLast(window, 'pageshow', resume);
    onLast(window, 'online', pump);
    onLast(window, 'storage', forgetDeleted);
    // Each in its own task, so that the page is never blocked for long.
    if (FULL) setTimeout(start);
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
