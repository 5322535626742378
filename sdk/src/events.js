import { pageColumns } from './columns.js';
import { enqueue } from './delivery.js';
import { isGranted } from './permission.js';
import { keyOf, settings } from './settings.js';
import { keys, remove } from './storage.js';
import { uuid } from './uuid.js';
import { forget, visitor } from './visitor.js';

/** How many events wait for a visitor's decision, in this page's memory. */
const MAX_HELD = 100;

/** @typedef {Record<string, unknown>} Columns */

/**
 * Columns of all events.
 *
 * @type {Columns}
 */
let common = {};
/** @type {Columns[]} */
let held = [];

/** @param {Columns} event */
const collect = (event) => {
  const granted = isGranted();
  if (granted) enqueue({ ...visitor(), ...event });
  else if (granted == null) held = [...held, event].slice(-MAX_HELD);
};

/** Does with what was held as the visitor wishes. */
export const release = () => {
  const granted = isGranted();
  if (granted == null) return;
  const events = held;
  held = [];
  events.forEach(collect);
  if (!granted) {
    forget();
    keys().forEach((key) => key.startsWith(keyOf('')) && remove(key));
  }
};

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
const record = (table, columns) =>
  collect({
    event_id: uuid(),
    time: Math.floor(Date.now() / 1000),
    ...pageColumns(),
    ...common,
    ...columns,
    table,
  });

/** @param {Columns} [columns] */
export const page = (columns) => record(settings.pageTable || 'pageviews', columns);

/**
 * Records an event among the named ones, or, where they have no table of their own, in the table of its name.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const track = (name, columns) =>
  settings.eventTable ? notice(name, columns) : record(name, columns);

/**
 * Records what the page did not ask for by name.
 *
 * @param {string} name
 * @param {Columns} [columns]
 */
export const notice = (name, columns) =>
  record(settings.eventTable || 'events', { event: name, ...columns });
