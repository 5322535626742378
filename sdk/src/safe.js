/**
 * Makes a function that never throws: nothing of ours may break the page.
 *
 * @template {unknown[]} A
 * @template R
 * @param {(...args: A) => R} run
 * @returns {(...args: A) => R | undefined} Returns undefined where `run` throws.
 */
export const guard =
  (run) =>
  (...args) => {
    try {
      return run(...args);
    } catch (error) {}
  };

/**
 * Listens before the page's own listeners, which may stop an event.
 *
 * @template {Event} E
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: E) => unknown} run
 */
export const on = (target, type, run) => onLast(target, type, run, true);

/**
 * Listens after those of `on`.
 *
 * @template {Event} E
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: E) => unknown} run
 * @param {boolean} [capture]
 */
export const onLast = (target, type, run, capture) =>
  target.addEventListener(type, guard(/** @type {(event: Event) => unknown} */ (run)), capture);
