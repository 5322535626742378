import { automatic } from './auto/automatic.js';
import { flush, leave, pump, resume } from './delivery.js';
import { hold, page, release, set, track, unset } from './events.js';
import { decide } from './permission.js';
import { onLast } from './safe.js';
import { keyOf, settings } from './settings.js';
import { forgetDeleted, write } from './storage.js';
import { tell } from './tell.js';
import { forget } from './visitor.js';

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
    if (!settings.endpoint) settings.key = ''; // nothing is recorded without a key
    tell(!settings.key, 'init', options);
    onLast(window, 'pagehide', () => {
      if (FULL) automatic(); // the core script has none
      release();
      leave();
    });
    onLast(document, 'visibilitychange', () => document.hidden && send()); // for a page that is shown again: `resume`
    onLast(window, 'pageshow', resume);
    onLast(window, 'online', pump);
    onLast(window, 'storage', forgetDeleted);
    // Each in its own task, so that the page is never blocked for long.
    if (FULL) setTimeout(automatic);
    setTimeout(release);
    setTimeout(pump);
  },
  page,
  track,
  set,
  identify(user) {
    if (user) hold(() => write(keyOf('user'), user));
  },
  consent(state) {
    tell(false, 'consent', state);
    decide(state == 'granted');
    release();
  },
  reset() {
    hold(forget);
    release();
    unset();
    forget(); // even if the visitor never decides
  },
  flush: send,
};
