import {
  GATHER_MS,
  LEASE_MS,
  MAX_CHARACTERS,
  add,
  batchId,
  close,
  closed,
  drop,
  isOwn,
  load,
  store,
} from './batches.js';
import { isGranted } from './permission.js';
import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { read, remove, stored, write } from './storage.js';
import { tell } from './tell.js';

const HOUR_MS = 3600000;
/** How long the server is certain to recognise a batch: its 30 days, less one for slow requests. */
const MEMORY_MS = 2505600000;
/** How long a request may take. */
const PATIENCE_MS = 10000;
const LONGEST_PAUSE_MS = 300000;

/** @type {string | undefined} */
let underway = '';
let failures = 0;
/** @type {number | undefined} */
let gathering;
/** @type {number | undefined} */
let retrying;

/**
 * Returns the ms until a time, 0 if it has passed or there is none. An hour or more means that the clock was set back, and counts as 0.
 *
 * @param {number} time UNIX ms.
 */
const ahead = (time) => {
  const wait = time - Date.now();
  return wait > 0 && wait < HOUR_MS ? wait : 0;
};

const pause = () => ahead(/** @type {any} */ (read(keyOf('pause'))));
/** @param {string} key */
const lease = (key) => ahead(+load(key)[0]);
const url = () => ('' + settings.endpoint).replace(/\/$/, '') + '/v1/events';

/**
 * @param {string} key
 * @param {string} events
 */
const body = (key, events) =>
  `{"batch_id":"${batchId(key)}","sent_at":${Date.now()},"write_key":"${settings.key}","events":[${events}]}`;

/**
 * Sends one batch. If two pages send the same one, the server counts it once.
 *
 * @param {string} key
 * @returns {Promise<true | void>} Whether the next one may be sent.
 */
const send = async (key) => {
  const [, sent, events] = load(key);
  const all = guard(JSON.parse)(`[${events}]`) || [];
  // What is not a batch is deleted, and so is one with an unknown outcome that the server may no longer recognise.
  if (!all[0] || (+sent && Date.now() - +sent > MEMORY_MS)) {
    remove(key);
    return true;
  }
  let wait = 0;
  const text = body(key, events);
  store(key, LEASE_MS, +sent || Date.now(), events);
  try {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), PATIENCE_MS);
    const answer = await fetch(url(), {
      method: 'POST',
      body: text,
      keepalive: text.length < MAX_CHARACTERS,
      signal: controller.signal,
    });
    const { headers, status } = answer;
    wait = 1000 * /** @type {any} */ (headers.get('retry-after')) || 0;
    const { error, accepted, rejected = [] } = await answer.json();
    // Only Sluice's responses account for every event, or name their error in a header. A batch that is unreadable, unwanted or
    // too large stays so; an operator can fix the cause of other refusals.
    const lost =
      status < 500 && accepted + rejected.length == all.length
        ? rejected.map((/** @type {{index: number}} */ one) => all[one.index])
        : headers.get('x-sluice-error') && (status == 400 || status == 403 || status == 413) && all;
    tell(lost ? lost[0] : status < 500 && status != 429, 'answer', status, error || rejected, all, lost);
    if (lost) {
      drop(lost);
      failures = 0;
      remove(key);
      return true;
    }
  } catch (error) {
    tell(false, 'no_answer', error);
  }
  wait = Math.min(wait, HOUR_MS / 2) + Math.random() * Math.min(1000 * 2 ** failures++, LONGEST_PAUSE_MS);
  if (load(key)[2]) {
    // It was not deleted meanwhile.
    write(keyOf('pause'), Date.now() + wait);
    store(key, wait, +sent, events);
  }
};

/** Sends the batches that may be sent now, one after another. */
export const pump = async () => {
  if (underway) return;
  try {
    clearTimeout(retrying);
    if (navigator.onLine === false) return; // the event `online` calls it again
    while (!pause() && isGranted()) {
      underway = closed().find(isOwn) || closed().find((key) => !lease(key));
      if (!underway || !(await send(underway))) break;
    }
    const waits = closed().map(lease);
    if (waits.length) {
      retrying = setTimeout(pump, Math.max(pause(), Math.min(...waits)) + 1000 * (1 + Math.random()));
    }
  } catch (error) {}
  underway = '';
};

/**
 * Sends what waits when the page is shown, once the page's own handlers have run, which may deny consent. Firefox never ends a
 * request of a page that it froze in the back/forward cache.
 *
 * @param {PageTransitionEvent} event
 */
export const resume = ({ persisted }) => {
  if (persisted) underway = '';
  setTimeout(pump);
};

/** Closes the open batch and sends it. */
export const flush = guard(() => {
  clearTimeout(gathering);
  gathering = 0;
  close();
  return pump();
});

/**
 * Keeps an event until it is delivered.
 *
 * @param {Record<string, unknown>} event
 */
export const enqueue = (event) => {
  if (add(event)) flush();
  else gathering = gathering || setTimeout(flush, GATHER_MS);
};

/** Hands the browser the batches that only this page has, because the page may be gone in a moment. */
export const leave = () => {
  close();
  for (const key of closed()) {
    const [, sent, events] = load(key);
    if (isGranted() && key != underway && (isOwn(key) || !stored(key))) {
      const text = body(key, events);
      // Before the beacon, because a browser may stop the script of a page that is left at any step, and later run it again.
      store(key, LEASE_MS, +sent || Date.now(), events);
      if (!guard(() => navigator.sendBeacon(url(), text))()) store(key, LEASE_MS, sent, events);
    }
  }
};
