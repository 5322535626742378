import { guard } from './safe.js';
import { keyOf } from './settings.js';
import { keys, memory, read, remove, write } from './storage.js';
import { tell } from './tell.js';
import { uuid } from './uuid.js';

/** Maximum events in a batch. */
const MAX_EVENTS = 10;
/** Maximum characters in a batch: at three bytes each, it fits the 64 KiB that a browser sends for a page that is left. */
export const MAX_CHARACTERS = 20000;
/** Maximum characters in an event: Sluice rejects anything larger. */
const MAX_EVENT_CHARACTERS = 262144;
/** Maximum characters in all stored batches; the oldest are dropped first. */
const MAX_KEPT = 500000;
/** How long a batch accepts events. */
export const GATHER_MS = 1000;
/** How long only one page may send a batch. */
export const LEASE_MS = 15000;

/** The open batch, which accepts events: its key, and their number. */
let open = '';
let count = 0;
/** Number of dropped events that no event has reported yet, in `sluice_dropped`. */
let dropped = 0;

/**
 * Returns the batch id that is sent to the server; it starts with the time when the batch was made.
 *
 * @param {string} key
 */
export const batchId = (key) => key.split('.')[3];

/** Returns a batch's age in ms; never negative, even if the clock was set back. @param {string} key */
const age = (key) => Math.abs(Date.now() - parseInt(batchId(key), 36));

/**
 * Returns when any page may send a batch (UNIX ms); when it was first sent if its outcome is unknown (UNIX ms), 0 if it is not,
 * or nothing if no page has tried; and its events as JSON, joined by commas. If there is no such batch, all are empty.
 *
 * @param {string} key
 * @returns {string[]}
 */
export const load = (key) => ((read(key) || '') + '\n\n').split('\n'); // JSON has none

/**
 * Returns whether only this page may send a batch: it has made it within LEASE_MS, and no page has tried to send it.
 *
 * @param {string} key
 */
export const isOwn = (key) => memory[key] && age(key) < LEASE_MS && !load(key)[1];

/**
 * Stores a batch.
 *
 * @param {string} key
 * @param {number} wait ms until any page may send it.
 * @param {string | number} sent When it was first sent, as in `load`.
 * @param {string} text Its events.
 */
export const store = (key, wait, sent, text) => write(key, [Date.now() + wait, sent, text].join('\n'), true);

/** Returns the keys of all pages' batches except the open one, oldest first. */
export const closed = () =>
  [...new Set(keys())].filter((key) => key != open && key.startsWith(keyOf('b.'))).sort();

/** Closes the open batch: it accepts no more events. */
export const close = () => {
  open = '';
};

/** @typedef {Record<string, unknown>} Columns */

/**
 * Counts dropped events, and the dropped events that they would have reported.
 *
 * @param {Columns[]} given
 */
export const drop = (given) => {
  for (const { sluice_dropped = 0 } of given) dropped += 1 + +(/** @type {number} */ (sluice_dropped));
};

/** Drops the oldest batches if more than MAX_KEPT characters are stored. */
const trim = () => {
  let kept = 0;
  for (const key of closed().reverse()) {
    const text = load(key)[2];
    kept += text.length;
    if (kept > MAX_KEPT) {
      remove(key);
      drop(JSON.parse(`[${text}]`));
    }
  }
};

/**
 * Replaces each value by its JSON, so that what the page later changes in it does not change the event. One that cannot be
 * serialized becomes undefined.
 *
 * @param {Columns} columns
 * @returns {Columns} The same columns.
 */
export const serialize = (columns) => {
  for (const name of Object.keys(columns)) {
    const value = columns[name];
    columns[name] = typeof value == 'bigint' ? '' + value : guard(JSON.stringify)(value);
  }
  return columns;
};

/**
 * Puts an event into the open batch, or into a new one if it does not fit.
 *
 * @param {Columns} event As `serialize` returns it. It may get another column.
 * @returns {boolean | void} Whether the batch is full.
 */
export const add = (event) => {
  if (dropped) event.sluice_dropped = dropped;
  const text = `{${Object.keys(event)
    .filter((name) => event[name])
    .map((name) => JSON.stringify(name) + ':' + event[name])}}`;
  if (text.length > MAX_EVENT_CHARACTERS) {
    dropped++;
    return tell(true, 'too_large', event.table);
  }
  dropped = 0;
  let [, , events] = load(open); // empty if another page has erased it
  if (events && events.length + text.length < MAX_CHARACTERS && age(open) < GATHER_MS) {
    events += ',' + text;
  } else {
    guard(trim)(); // another script may have written what it reads
    open = keyOf('b.') + Date.now().toString(36) + '-' + uuid();
    count = 0;
    events = text;
  }
  store(open, LEASE_MS, '', events);
  return ++count >= MAX_EVENTS;
};
