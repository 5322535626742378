/**
 * Wraps a function so that it never throws: the SDK must not break the page.
 *
 * @template {unknown[]} A
 * @template R
 * @param {(...args: A) => R} run
 * @returns {(...args: A) => R | undefined} Returns undefined if `run` throws.
 */
export const guard =
  (run) =>
  (...args) => {
    try {
      return run(...args);
    } catch (error) {}
  };

/**
 * Adds a listener that runs before the page's own, which may stop the event.
 *
 * @template {Event} E
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: E) => unknown} run
 */
export const on = (target, type, run) => onLast(target, type, run, true);

/**
 * Adds a listener that runs after those of `on`.
 *
 * @template {Event} E
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: E) => unknown} run
 * @param {boolean} [capture]
 */
export const onLast = (target, type, run, capture) =>
  target.addEventListener(type, guard(/** @type {(event: Event) => unknown} */ (run)), capture);
