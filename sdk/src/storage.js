import { guard } from './safe.js';

/**
 * What the browser does not store for us lives as long as the page.
 *
 * @type {Record<string, string>}
 */
const memory = {};

/** Returns the text; null or undefined where there is none. */
export const read = guard((/** @type {string} */ key) => memory[key] || localStorage.getItem(key));

export const remove = guard((/** @type {string} */ key) => {
  delete memory[key];
  localStorage.removeItem(key);
});

/**
 * @param {string} key
 * @param {string | number} text
 * @param {boolean} [only] Where this text cannot be stored, no older one may stay.
 */
export const write = (key, text, only) => {
  try {
    localStorage.setItem(key, '' + text);
    delete memory[key];
  } catch (error) {
    if (only) remove(key);
    memory[key] = '' + text;
  }
};

/**
 * Tells whether a text will be gone with the page.
 *
 * @param {string} key
 */
export const isVolatile = (key) => key in memory;

/** Returns all keys; a key may be there twice. */
export const keys = () => Object.keys(memory).concat(guard(() => Object.keys(localStorage))() || []);
