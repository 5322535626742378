/** Maximum `utm_…` parameters that become columns: whoever makes a link chooses how many it has. */
const MAX_PARAMETERS = 20;

/** Returns the page's URL without the fragment. */
export const address = () => location.href.split('#')[0];

/** Returns columns that identify the page, named as in Treasure Data's own SDK. */
export const pageColumns = () => ({
  td_referrer: document.referrer,
  td_host: location.host,
  td_path: location.pathname,
  td_title: document.title,
  td_url: address(),
});

/** Returns columns that are the same for all events of a page and may be slow to read. */
export const browserColumns = () => ({
  td_charset: document.characterSet.toLowerCase(),
  td_language: navigator.language.toLowerCase(),
  td_color: screen.colorDepth + '-bit',
  td_screen: screen.width + 'x' + screen.height,
  td_viewport: innerWidth + 'x' + innerHeight,
  td_platform: navigator.platform,
});

/** Returns columns set by the page's author and its campaigns. */
export const authorColumns = () => {
  const columns = Object.fromEntries(
    [...new URLSearchParams(location.search)]
      .filter(([name]) => name.startsWith('utm_'))
      .slice(0, MAX_PARAMETERS),
  );
  const meta = document.querySelector('meta[name=description]');
  if (meta) columns.td_description = /** @type {HTMLMetaElement} */ (meta).content;
  return columns;
};
