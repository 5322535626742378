import { guard } from './safe.js';
import { keyOf } from './settings.js';
import { keys, read, remove, write } from './storage.js';
import { uuid } from './uuid.js';

/** How many events a batch holds. */
const MAX_EVENTS = 10;
/** How many characters: at three bytes each they stay below the 64 KiB that a browser sends for a page that is left. */
export const MAX_CHARACTERS = 20000;
/** How large an event may be: Sluice takes less. */
const MAX_EVENT_CHARACTERS = 262144;
/** How many characters of all batches are kept; the oldest go first. */
const MAX_KEPT = 500000;
/** How long a batch takes events. */
export const GATHER_MS = 1000;
/** How long a batch is a sender's own. */
export const LEASE_MS = 15000;

/**
 * The texts of this page's batches that it has not sent: while they are its own, no script of the page can clear them.
 *
 * @type {Record<string, string>}
 */
const fresh = {};

/** The key of the batch that takes events, these as JSON, joined by commas, and how many they are. */
let open = '';
let events = '';
let count = 0;
/** How many events were given up and not yet told of. */
let dropped = 0;

/**
 * Returns the name under which the server knows a batch; it starts with when it was made.
 *
 * @param {string} key
 */
export const batchId = (key) => key.slice(keyOf('b.').length);

/** Returns how many ms ago a batch was made, by a clock that may have been set back. @param {string} key */
const age = (key) => Math.abs(Date.now() - parseInt(batchId(key), 36));

/**
 * Tells whether nobody can have sent a batch that this page has made. What was once any page's stays so, wherever the
 * clock jumps.
 *
 * @param {string} key
 */
export const isOwn = (key) => {
  if (age(key) >= LEASE_MS) delete fresh[key];
  return key in fresh;
};

/**
 * Returns from when any page may send a batch (UNIX ms), when it was first sent without a failure to be heard of
 * (UNIX ms, else 0), and its events as JSON, joined by commas; these are empty where there is no batch.
 *
 * @param {string} key
 * @returns {[due: number, sent: number, events: string]}
 */
export const load = (key) => {
  const [due, sent, text] = (isOwn(key) ? fresh[key] : read(key) || '').split('\n'); // JSON has none
  return [+due, +sent, text || ''];
};

/**
 * Stores a batch.
 *
 * @param {string} key
 * @param {number} wait ms.
 * @param {number} sent
 * @param {string} text
 * @param {boolean} own Whether this page has not sent it, as is so of the open one; otherwise it is then any page's.
 */
export const store = (key, wait, sent, text, own = key == open) => {
  const batch = [Date.now() + wait, sent, text].join('\n');
  delete fresh[key];
  if (own) fresh[key] = batch;
  write(key, batch, own); // of the open one, the events have changed
};

/** Returns the keys of all pages' batches but the open one, the oldest first. */
export const closed = () =>
  [...new Set([...Object.keys(fresh).filter(isOwn), ...keys()])]
    .filter((key) => key != open && key.startsWith(keyOf('b.')))
    .sort();

/** Lets the open batch take no more events. */
export const close = () => {
  open = '';
};

/** @typedef {Record<string, unknown>} Columns */

/**
 * Counts events that are given up, and those of which they would have told.
 *
 * @param {Columns[]} given
 */
export const drop = (given) => {
  for (const { sluice_dropped = 0 } of given) dropped += 1 + Number(sluice_dropped);
};

/** @param {string} key */
export const settle = (key) => {
  delete fresh[key];
  remove(key);
};

/** Makes room: the oldest batches go. */
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
 * Puts an event into the open batch, or into a new one where it does not fit.
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
