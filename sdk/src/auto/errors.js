import { notice } from '../events.js';
import { on } from '../safe.js';

/** How many more errors of this page are recorded. */
let left = 10;

/**
 * @param {unknown} error
 * @param {string} [source]
 * @param {number} [line]
 */
const report = (error, source, line) => {
  if (left-- > 0) notice('error', { message: String(error).slice(0, 500), source, line });
};

/** Records errors that the page's scripts do not catch. */
export const errors = () => {
  on(
    window,
    'error',
    (/** @type {ErrorEvent} */ event) => event.message && report(event.message, event.filename, event.lineno),
  );
  on(window, 'unhandledrejection', (/** @type {PromiseRejectionEvent} */ event) => report(event.reason));
};
