import { settings } from './settings.js';

/** @type {boolean | undefined} */
let decision;

/** Stores the visitor's decision. @param {boolean} granted */
export const decide = (granted) => {
  decision = granted;
};

/** Returns whether the browser sends a privacy signal that the page does not ignore. */
const isRefused = () =>
  (settings.gpc !== false && navigator.globalPrivacyControl) || (settings.dnt && navigator.doNotTrack == '1');

/**
 * Returns whether events may be stored and sent; undefined while unknown.
 *
 * @returns {boolean | undefined}
 */
export const isGranted = () =>
  !settings.key
    ? undefined
    : isRefused()
      ? false
      : settings.consent
        ? decision
        : decision !== false;
