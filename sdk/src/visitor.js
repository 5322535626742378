import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { read, remove, write } from './storage.js';
import { uuid } from './uuid.js';

const TWO_YEARS_S = 63072000;

/** @type {string | null | undefined} */
let id;
/** @type {string | undefined} */
let user;

const cookieName = () => settings.cookieName || '_td';

// A frame without an origin must not even ask for cookies: calls of these two may throw.

/** Returns what td-js-sdk or an earlier page has set. */
const cookie = () => (document.cookie.match(`(?:^|; )${cookieName()}=([^;]+)`) || [])[1];

/**
 * @param {string} value
 * @param {number} seconds
 */
const setCookie = (value, seconds) => {
  document.cookie =
    `${cookieName()}=${value};path=/;samesite=lax;max-age=${seconds}` +
    (settings.cookieDomain ? ';domain=' + settings.cookieDomain : '') +
    (location.protocol == 'https:' ? ';secure' : '');
};

/** Remembers who uses the browser. @param {unknown} name */
export const identify = (name) => {
  user = '' + name;
};

/** Returns the columns that tell whose event it is. */
export const visitor = () => {
  if (!id && settings.id != 'none') {
    id = read(keyOf('id')) || (FULL && guard(cookie)()) || uuid();
    if (FULL && settings.id == 'cookie') guard(setCookie)(id, TWO_YEARS_S);
    else write(keyOf('id'), id);
  }
  if (user) write(keyOf('user'), user);
  return { td_client_id: id, user_id: read(keyOf('user')) || undefined };
};

/** Forgets who it was; the next event has a new id. */
export const forget = () => {
  id = user = undefined;
  remove(keyOf('id'));
  remove(keyOf('user'));
  if (FULL && settings.id == 'cookie') guard(setCookie)('', 0);
};
