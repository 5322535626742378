import { pageColumns } from '../columns.js';
import { notice } from '../events.js';
import { guard, on } from '../safe.js';

/** Ends the view of a page when a script shows another one. */
export let moved = () => {};

/** Records, whenever the page goes out of view, for how long it was in view and how far down it was seen. */
export const leaving = () => {
  /** When it came into view, in ms of its life; 0 while it is hidden. */
  let since = 0;
  let deepest = 0;
  let columns = {};

  const look = () => {
    deepest = Math.max(deepest, scrollY + innerHeight);
  };

  const begin = guard(() => {
    since = document.hidden ? 0 : performance.now();
    columns = pageColumns(); // by the time of the report a script may have changed the address
    look();
  });

  const report = () => {
    if (since) {
      notice('leave', {
        ...columns,
        visible_ms: Math.round(performance.now() - since),
        scroll_percent: Math.min(100, Math.round((100 * deepest) / document.documentElement.scrollHeight)),
      });
    }
    since = 0;
  };

  moved = () => {
    report();
    deepest = 0;
    setTimeout(begin);
  };
  on(document, 'visibilitychange', () => (document.hidden ? report() : begin()));
  on(window, 'pagehide', report);
  on(window, 'scroll', look);
  setTimeout(begin); // later, because it forces a layout
};
