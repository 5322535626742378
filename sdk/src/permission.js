import { settings } from './settings.js';

/** @type {boolean | undefined} */
let decision;

/** Takes a visitor's decision. @param {boolean} granted */
export const decide = (granted) => {
  decision = granted;
};

/** Whether the browser asks not to be measured, and the page did not choose to overlook it. */
const isRefused = () =>
  (settings.gpc !== false && navigator.globalPrivacyControl) || (settings.dnt && navigator.doNotTrack == '1');

/**
 * Tells whether events may be stored and sent; undefined while that is not known.
 *
 * @returns {boolean | undefined}
 */
export const isGranted = () =>
  !settings.key
    ? undefined
    : isRefused()
      ? false
      : settings.consent == 'required'
        ? decision
        : decision !== false;
