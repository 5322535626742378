import { guard } from './safe.js';

/** The page's address without the fragment. */
export const address = () => location.href.split('#')[0];

/** Says what Treasure Data's own SDK says of a page, under the same names. */
export const pageColumns = () => ({
  td_version: VERSION,
  td_url: address(),
  td_host: location.host,
  td_path: location.pathname,
  td_title: document.title,
  td_referrer: document.referrer,
  // Pages overwrite some of these globals: better an event without them than none.
  ...guard(() => ({
    td_charset: document.characterSet.toLowerCase(),
    td_language: navigator.language.toLowerCase(),
    td_color: screen.colorDepth + '-bit',
    td_screen: screen.width + 'x' + screen.height,
    td_viewport: innerWidth + 'x' + innerHeight,
    td_platform: navigator.platform,
  }))(),
  ...(FULL && guard(marketing)()),
});

/** Says what the page's author and its campaigns say. */
const marketing = () => {
  /** @type {Record<string, string | undefined>} */
  const columns = {};
  new URLSearchParams(location.search).forEach((value, name) => {
    if (name.startsWith('utm_')) columns[name] = value;
  });
  const meta = document.querySelector('meta[name=description]');
  if (meta) columns.td_description = /** @type {HTMLMetaElement} */ (meta).content;
  return columns;
};
