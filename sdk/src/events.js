import { serialize } from './batches.js';
import { authorColumns, browserColumns, pageColumns } from './columns.js';
import { enqueue } from './delivery.js';
import { isGranted } from './permission.js';
import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { keys, remove } from './storage.js';
import { tell } from './tell.js';
import { uuid } from './uuid.js';
import { forget, visitor } from './visitor.js';

/** Maximum events that wait for the visitor's consent. */
const MAX_HELD = 100;

/** @typedef {Record<string, unknown>} Columns */

/**
 * Columns added to every event.
 *
 * @type {Columns}
 */
let common = {};
/**
 * Serialized events not stored yet, because the page's own work has priority or the visitor has not decided, and the changes of
 * the visitor between them.
 *
 * @type {[event: Columns | undefined, change?: () => void][]}
 */
let held = [];
/** @type {number | undefined} */
let waiting;

/** Changes the visitor after the events that are held. @param {() => void} change */
export const hold = (change) => held.push([, change]);

/** Stores, keeps waiting or discards the held events, depending on the visitor's consent. */
export const release = guard(() => {
  clearTimeout(waiting);
  waiting = 0;
  const granted = isGranted();
  const events = held;
  held = [];
  if (granted) {
    events.forEach(
      guard(([event, change]) =>
        change
          ? change()
          : enqueue({ ...serialize({ ...visitor(), ...(FULL && guard(browserColumns)()) }), ...event }),
      ),
    );
  } else if (granted == null) {
    held = events.filter(([, change], index) => change || index >= events.length - MAX_HELD);
  } else {
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
  if (isGranted() === false) return tell(false, 'not_recorded', table);
  columns = {
    event_id: uuid(),
    td_version: VERSION,
    ...pageColumns(),
    ...(FULL && guard(authorColumns)()),
    ...common,
    ...columns,
    table,
  };
  columns.time = columns.time || (Date.now() / 1000) >>> 0; // shorter than Math.floor
  tell(false, 'event', table, { ...columns });
  held.push([serialize(columns)]);
  // Browsers delay timers of hidden pages.
  if (document.hidden) release();
  else waiting = waiting || setTimeout(release);
};

/** @param {Columns} [columns] */
export const page = (columns) => record(settings.pageTable || 'pageviews', columns);

/**
 * Records an event in the event table or, if none is set, in a table named after the event.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const track = (name, columns) => (settings.eventTable ? notice(name, columns) : record(name, columns));

/**
 * Records an automatic event.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const notice = (name, columns) => record(settings.eventTable || 'events', { ...columns, event: name });
