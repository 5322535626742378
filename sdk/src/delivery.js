import {
  GATHER_MS,
  LEASE_MS,
  MAX_CHARACTERS,
  add,
  age,
  batchId,
  close,
  closed,
  drop,
  isOwn,
  isUnsent,
  load,
  madeAt,
  settle,
  store,
} from './batches.js';
import { isGranted } from './permission.js';
import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { isVolatile, read, remove, write } from './storage.js';

const HOUR_MS = 3600000;
/** How long the server is certain to recognize a batch: it remembers an hour, less the time that requests take. */
const MEMORY_MS = 3000000;
/** Request timeout. */
const TIMEOUT_MS = 10000;
/** Twice the time until a page sees what another page has stored. */
const SPREAD_MS = 250;
const LONGEST_PAUSE_MS = 300000;

let current = '';
/** The last batch that the server told this page it did not accept. */
let refused = '';
let failures = 0;
/** @type {number | undefined} */
let gathering;
/** @type {number | undefined} */
let retrying;

/**
 * Returns the ms until a time. An hour or more means that the clock was set back.
 *
 * @param {number} time UNIX ms.
 */
const ahead = (time) => {
  const wait = time - Date.now();
  return wait > 0 && wait < HOUR_MS ? wait : 0;
};

const pause = () => ahead(+(read(keyOf('pause')) || 0));
/** @param {string} key */
const lease = (key) => ahead(load(key)[0]);
const url = () => ('' + settings.endpoint).replace(/\/$/, '') + '/v1/events';

/**
 * @param {string} key
 * @param {string} events
 * @param {number} doubt
 */
const body = (key, events, doubt) =>
  `{"batch_id":"${batchId(key)}","sent_at":${Date.now()},"write_key":"${settings.key}",${
    doubt ? `"repeat":true,"made_at":${madeAt(key)},` : ''
  }"events":[${events}]}`;

/**
 * Claims a batch that any page may send.
 *
 * @param {string} key
 * @returns {Promise<boolean>} False if another page was faster.
 */
const claim = async (key) => {
  const [, doubt, events] = load(key);
  if (!events) remove(key); // not a batch
  if (!events || lease(key)) return false; // the lock may have been granted late
  store(key, LEASE_MS + Math.random(), doubt, events); // the random fraction identifies the owner
  const text = read(key);
  await new Promise((done) => setTimeout(done, SPREAD_MS));
  return read(key) == text;
};

/**
 * Sends one batch.
 *
 * @param {string} key
 * @returns {Promise<boolean>} Whether the next one may be sent.
 */
const send = async (key) => {
  // If the batch could not be stored again, a page that sees its old state may have sent it meanwhile.
  const unsent = isUnsent(key) || (key == refused && !isVolatile(key));
  if (!isOwn(key)) {
    let won;
    try {
      won = await navigator.locks.request(key, { ifAvailable: true }, (lock) => lock && claim(key));
    } catch (error) {
      won = await claim(key);
    }
    if (!won) return false;
  }
  let [, doubt, events] = load(key);
  // Another page may have sent this batch and been closed before that was stored.
  if (!unsent && age(key) < HOUR_MS) doubt = doubt || -1;
  let wait = 0;
  // A batch sent when its page was left, which the server would no longer recognize, counts as delivered.
  let done = doubt > 0 && Date.now() - doubt > MEMORY_MS;
  if (!done) {
    const text = body(key, events, doubt);
    store(key, LEASE_MS, doubt || Date.now(), events);
    try {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), TIMEOUT_MS);
      const answer = await fetch(url(), {
        method: 'POST',
        body: text,
        keepalive: text.length < MAX_CHARACTERS,
        signal: controller.signal,
      });
      if (isGranted()) write(keyOf('heard'), 1);
      wait = 1000 * Number(answer.headers.get('retry-after')) || 0;
      // Invalid, unwanted or too large batches never succeed. Other rejections are configuration errors that will be fixed.
      if (answer.ok || answer.status == 400 || answer.status == 403 || answer.status == 413) {
        const { error, rejected = [] } = await answer.json();
        done = true;
        if (error || rejected[0]) console.warn('sluice', error || rejected);
        const all = JSON.parse(`[${events}]`);
        drop(answer.ok ? rejected.map((/** @type {{index: number}} */ { index }) => all[index]) : all);
      } else if (answer.status == 503) refused = key;
      else doubt = doubt || -1;
    } catch (error) {
      // If no response was ever readable, the server may accept every batch while CORS hides the responses.
      doubt = doubt || (read(keyOf('heard')) ? -1 : Date.now());
    }
  }
  if (done) {
    failures = 0;
    settle(key);
    return true;
  }
  wait = Math.min(wait, HOUR_MS / 2) + Math.random() * Math.min(1000 * 2 ** failures++, LONGEST_PAUSE_MS);
  if (load(key)[2]) {
    // It has not been deleted meanwhile.
    write(keyOf('pause'), Date.now() + wait);
    store(key, wait, doubt, events);
  }
  return false;
};

/** Sends all batches that may be sent now, one after another. */
export const pump = async () => {
  if (current) return;
  try {
    clearTimeout(retrying);
    while (!pause() && navigator.onLine !== false && isGranted()) {
      current = closed().find(isOwn) || closed().find((key) => !lease(key)) || '';
      if (!current || !(await send(current))) break;
    }
    const waits = closed().map(lease);
    if (waits.length) {
      retrying = setTimeout(pump, Math.max(pause(), Math.min(...waits)) + 1000 * (1 + Math.random()));
    }
  } catch (error) {}
  current = '';
};

/** Closes the open batch and sends. */
export const flush = guard(() => {
  clearTimeout(gathering);
  gathering = 0;
  close();
  return pump();
});

/**
 * Stores an event until it is delivered.
 *
 * @param {Record<string, unknown>} event
 */
export const enqueue = (event) => {
  if (add(event)) flush();
  else gathering = gathering || setTimeout(flush, GATHER_MS);
};

/** Sends what only this page has as beacons, because the page may be closed at any moment. */
export const leave = () => {
  close();
  for (const key of closed()) {
    const [, doubt, events] = load(key);
    const own = isOwn(key);
    if (isGranted() && key != current && (own || isVolatile(key))) {
      const text = body(key, events, doubt);
      // Store first: a browser may stop the script of a page being left at any point, and resume the page later.
      store(key, LEASE_MS, doubt || Date.now(), events);
      if (!navigator.sendBeacon(url(), text)) store(key, LEASE_MS, doubt, events, own);
    }
  }
};
