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

// Accessing cookies throws in a frame without an origin, so these two functions may throw.

/** Returns the id set by td-js-sdk or an earlier page. */
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

/** Stores the user's name. @param {unknown} name */
export const identify = (name) => {
  user = '' + name;
};

/** Returns the columns that identify the visitor. */
export const visitor = () => {
  if (!id && settings.id != 'none') {
    id = read(keyOf('id')) || (FULL && guard(cookie)()) || uuid();
    if (FULL && settings.id == 'cookie') guard(setCookie)(id, TWO_YEARS_S);
    else write(keyOf('id'), id);
  }
  if (user) write(keyOf('user'), user);
  return { td_client_id: id, user_id: read(keyOf('user')) || undefined };
};

/** Deletes the visitor's id and user; the next event gets a new id. */
export const forget = () => {
  id = user = undefined;
  remove(keyOf('id'));
  remove(keyOf('user'));
  if (FULL && settings.id == 'cookie') guard(setCookie)('', 0);
};
