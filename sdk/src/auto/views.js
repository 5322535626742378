import { address } from '../columns.js';
import { page } from '../events.js';
import { guard, on } from '../safe.js';
import { moved } from './leaving.js';

/**
 * Records a view for the page, for each address that its scripts change to, and for each return to it. Several changes in one
 * task are one view, of the last address.
 */
export const views = () => {
  let here = address();
  /** @type {number | undefined} */
  let waiting;

  const view = guard(() => {
    const last = here;
    here = address();
    waiting = 0;
    if (here != last) page({ td_referrer: last });
  });

  const look = guard(() => {
    if (here != address() && !waiting) {
      moved();
      waiting = setTimeout(view); // scripts set the title after the address
    }
  });

  for (const name of /** @type {const} */ (['pushState', 'replaceState'])) {
    const original = history[name];
    history[name] = function () {
      original.apply(this, /** @type {any} */ (arguments));
      look();
    };
  }
  on(window, 'popstate', look);
  on(window, 'pageshow', (/** @type {PageTransitionEvent} */ { persisted }) => persisted && page());
  if (document.prerendering) on(document, 'prerenderingchange', () => page());
  else page();
};
