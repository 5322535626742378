import { settings } from '../settings.js';
import { clicks } from './clicks.js';
import { errors } from './errors.js';
import { forms } from './forms.js';
import { leaving } from './leaving.js';
import { links } from './links.js';
import { views } from './views.js';

/** What comes by itself, by the name under which the option `auto` asks for it. */
const KINDS = { leave: leaving, page: views, links, clicks, forms, errors };

/** Starts what the option asks for. */
export const automatic = () => {
  for (const [name, start] of Object.entries(KINDS)) {
    if (
      settings.auto === true ||
      (settings.auto && settings.auto.includes(/** @type {keyof typeof KINDS} */ (name)))
    )
      start();
  }
};
