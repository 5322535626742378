import { notice } from '../events.js';
import { on } from '../safe.js';

const PREFIX = 'data-sluice-';

/** Records clicks on elements with `data-sluice-event`; their other `data-sluice-` attributes become columns. */
export const clicks = () =>
  on(window, 'click', ({ target }) => {
    const element = /** @type {Element} */ (target).closest(`[${PREFIX}event]`);
    if (element) {
      const columns = Object.fromEntries(
        [...element.attributes]
          .filter(({ name }) => name.startsWith(PREFIX))
          .map(({ name, value }) => [name.slice(PREFIX.length), value]),
      );
      notice(columns.event, columns);
    }
  });
