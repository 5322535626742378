import { notice } from '../events.js';
import { on } from '../safe.js';

const FILES =
  /\.(7z|apk|avi|csv|dmg|docx?|epub|exe|gz|iso|m4[av]|mov|mp[34]|msi|odt|pdf|pkg|pptx?|rar|tar|txt|wav|wmv|xlsx?|zip)$/i;

/** @param {MouseEvent} event */
const look = ({ target, button }) => {
  /** @type {HTMLAnchorElement | null} */
  const link = /** @type {Element} */ (target).closest('a[href]');
  if (link && button < 2 && /^http/.test(link.protocol)) {
    // Only the left button, 0, and the middle one, 1, follow a link. A link within an SVG image has no protocol.
    const name =
      link.hasAttribute('download') || FILES.test(link.pathname)
        ? 'download'
        : link.host != location.host && 'outbound';
    if (name) notice(name, { href: link.href, text: link.innerText });
  }
};

/** Records clicks on links to files and to other sites. */
export const links = () => {
  on(window, 'click', look);
  on(window, 'auxclick', look);
};
