import { authorColumns, browserColumns, pageColumns } from './columns.js';
import { enqueue } from './delivery.js';
import { isGranted } from './permission.js';
import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { keys, remove } from './storage.js';
import { uuid } from './uuid.js';
import { forget, visitor } from './visitor.js';

/** How many events wait for a visitor's decision. */
const MAX_HELD = 100;

/** @typedef {Record<string, unknown>} Columns */

/**
 * Columns of all events.
 *
 * @type {Columns}
 */
let common = {};
/**
 * Events that are not kept yet, because the page's own work goes first or the visitor has not decided.
 *
 * @type {Columns[]}
 */
let held = [];
/** @type {number | undefined} */
let waiting;

/** Does with what is held as the visitor wishes. */
export const release = guard(() => {
  clearTimeout(waiting);
  waiting = 0;
  const granted = isGranted();
  if (granted) {
    const events = held;
    held = [];
    for (const event of events) enqueue({ ...visitor(), ...(FULL && guard(browserColumns)()), ...event });
  } else if (granted == null) {
    held = held.slice(-MAX_HELD);
  } else {
    held = [];
    forget();
    keys().forEach((key) => key.startsWith(keyOf('')) && remove(key));
  }
});

/** @param {Columns} columns */
export const set = (columns) => {
  common = { ...common, ...columns };
};

export const unset = () => {
  common = {};
};

/**
 * @param {string} table
 * @param {Columns} [columns]
 */
const record = (table, columns) => {
  if (isGranted() === false) return;
  held.push({
    event_id: uuid(),
    time: Math.floor(Date.now() / 1000),
    td_version: VERSION,
    ...pageColumns(),
    ...(FULL && guard(authorColumns)()),
    ...common,
    ...columns,
    table,
  });
  // Timers of hidden pages are late.
  if (document.hidden) release();
  else waiting = waiting || setTimeout(release);
};

/** @param {Columns} [columns] */
export const page = (columns) => record(settings.pageTable || 'pageviews', columns);

/**
 * Records an event among the named ones, or, where they have no table of their own, in the table of its name.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const track = (name, columns) => (settings.eventTable ? notice(name, columns) : record(name, columns));

/**
 * Records what the page did not ask for by name.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const notice = (name, columns) => record(settings.eventTable || 'events', { event: name, ...columns });
