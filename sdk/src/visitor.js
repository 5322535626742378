import { guard } from './safe.js';
import { keyOf, settings } from './settings.js';
import { read, remove, write } from './storage.js';
import { uuid } from './uuid.js';

const TWO_YEARS_S = 63072000;

/**
 * The id in the cookie that this page has set, and whether the browser has kept the cookie.
 *
 * @type {string | undefined}
 */
let own;
let isKept = false;

const cookieName = () => settings.cookieName || '_td';

// Accessing cookies throws in a frame without an origin, so these functions may throw.

/** Returns the id set by td-js-sdk or an earlier page. */
const cookie = () => (`; ${document.cookie}`.split(`; ${cookieName()}=`)[1] || '').split(';')[0];

/**
 * @param {string} value
 * @param {number} seconds
 * @param {string} [domain] Default: the page's host only.
 */
const setCookie = (value, seconds, domain) => {
  document.cookie =
    `${cookieName()}=${value};path=/;samesite=lax;max-age=${seconds}` +
    (domain ? ';domain=' + domain : '') +
    (location.protocol == 'https:' ? ';secure' : '');
};

/**
 * Deletes a domain's cookie and, while there is one, those of wider domains: td-js-sdk may have set any.
 *
 * @param {string} domain Empty for the page's host only.
 * @param {string} wider
 */
const deleteCookie = (domain, wider) => {
  setCookie('', 0, domain);
  if (wider && cookie()) deleteCookie(wider, wider.replace(/[^.]*.?/, ''));
};

/** Returns the columns that identify the visitor. They are read each time: another page may have reset them. */
export const visitor = () => {
  let id;
  if (/** @type {unknown} */ (settings.id) !== false && settings.id != 'none') {
    const stored = read(keyOf('id'));
    id = stored || (FULL && (guard(cookie)() || (!isKept && own))) || uuid();
    if (FULL && settings.id == 'cookie') {
      if (id != own) guard(setCookie)((own = id), TWO_YEARS_S, settings.cookieDomain);
      isKept = guard(cookie)() == id;
    } else if (!stored) write(keyOf('id'), id);
  }
  return { td_client_id: id, user_id: read(keyOf('user')) };
};

/** Deletes the visitor's id and user; the next event gets a new id. */
export const forget = () => {
  own = '';
  remove(keyOf('id'));
  remove(keyOf('user'));
  if (FULL) guard(deleteCookie)('', location.hostname);
};
