import { guard } from './safe.js';
import { keyOf } from './settings.js';
import { keys, read, remove, write } from './storage.js';
import { uuid } from './uuid.js';

/** Maximum events per batch. */
const MAX_EVENTS = 10;
/** Maximum characters per batch: at three bytes each below the 64 KiB that browsers send after the page is left. */
export const MAX_CHARACTERS = 20000;
/** Maximum size of an event; Sluice accepts no larger one. */
const MAX_EVENT_CHARACTERS = 262144;
/** Maximum characters of all stored batches; the oldest are dropped first. */
const MAX_KEPT = 500000;
/** How long a batch collects events. */
export const GATHER_MS = 1000;
/** How long a batch belongs to one sender. Its requests must arrive within this time, or a retry may count twice. */
export const LEASE_MS = 15000;

/**
 * The texts of this page's unsent batches. While the page owns them, no other script can clear them.
 *
 * @type {Record<string, string>}
 */
const fresh = {};

/** The open batch: its key, its events as comma-separated JSON, and their number. */
let open = '';
let events = '';
let count = 0;
/** How many dropped events have not been reported yet. */
let dropped = 0;

/**
 * Returns the id that the server knows a batch by; it starts with the creation time.
 *
 * @param {string} key
 */
export const batchId = (key) => key.slice(keyOf('b.').length);

/** Returns a batch's creation time in UNIX ms. @param {string} key */
export const madeAt = (key) => parseInt(batchId(key), 36);

/** Returns a batch's age in ms; the clock may have been set back. @param {string} key */
export const age = (key) => Math.abs(Date.now() - madeAt(key));

/**
 * Tells whether this page created the batch and has not sent it.
 *
 * @param {string} key
 */
export const isUnsent = (key) => key in fresh;

/**
 * Tells whether no other page can have sent it either. Once other pages may send a batch, that never changes, even if the
 * clock jumps.
 *
 * @param {string} key
 */
export const isOwn = (key) => {
  if (age(key) >= LEASE_MS) delete fresh[key];
  return isUnsent(key);
};

/**
 * Returns when any page may send a batch (UNIX ms), the doubt whether the server has it, and its events as
 * comma-separated JSON, empty if there is no batch.
 *
 * The doubt is 0 if the server definitely does not have it; -1 if that is unlikely, because a request failed; and the
 * sending time (UNIX ms) if it is likely, because the page was left during a request.
 *
 * @param {string} key
 * @returns {[due: number, doubt: number, events: string]}
 */
export const load = (key) => {
  const [due, doubt, text] = (isOwn(key) ? fresh[key] : read(key) || '').split('\n'); // JSON text has no line breaks
  return [+due, +doubt, text || ''];
};

/**
 * Stores a batch.
 *
 * @param {string} key
 * @param {number} wait ms.
 * @param {number} doubt
 * @param {string} text
 * @param {boolean} own Whether this page has not sent it, which is true of the open batch; otherwise any page may send it.
 */
export const store = (key, wait, doubt, text, own = key == open) => {
  const batch = [Date.now() + wait, doubt, text].join('\n');
  delete fresh[key];
  if (own) fresh[key] = batch;
  write(key, batch, own); // an older text of the open batch must not remain
};

/** Returns the keys of all pages' batches except the open one, oldest first. */
export const closed = () =>
  [...new Set([...Object.keys(fresh).filter(isOwn), ...keys()])]
    .filter((key) => key != open && key.startsWith(keyOf('b.')))
    .sort();

/** Closes the open batch. */
export const close = () => {
  open = '';
};

/** @typedef {Record<string, unknown>} Columns */

/**
 * Counts dropped events, and those that they would have reported as dropped.
 *
 * @param {Columns[]} given
 */
export const drop = (given) => {
  for (const { sluice_dropped = 0 } of given) dropped += 1 + Number(sluice_dropped);
};

/** Deletes a batch. @param {string} key */
export const settle = (key) => {
  delete fresh[key];
  remove(key);
};

/** Drops the oldest batches to make room. */
const trim = () => {
  let kept = 0;
  for (const key of closed().reverse()) {
    const text = load(key)[2];
    kept += text.length;
    if (kept > MAX_KEPT) {
      settle(key);
      drop(JSON.parse(`[${text}]`));
    }
  }
};

/**
 * Adds an event to the open batch, or to a new one if it does not fit.
 *
 * @param {Columns} event
 * @returns {boolean} Whether the batch is full.
 */
export const add = (event) => {
  const text = guard(JSON.stringify)(dropped ? { ...event, sluice_dropped: dropped } : event);
  if (!text || text.length > MAX_EVENT_CHARACTERS) {
    drop([{}]);
    return false;
  }
  dropped = 0;
  if (open && events.length + text.length < MAX_CHARACTERS && age(open) < GATHER_MS) {
    events += ',' + text;
  } else {
    trim();
    open = keyOf('b.') + Date.now().toString(36) + '-' + uuid();
    count = 0;
    events = text;
  }
  store(open, LEASE_MS, 0, events);
  return ++count >= MAX_EVENTS;
};
