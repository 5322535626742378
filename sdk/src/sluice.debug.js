/* Prints the SDK's messages in debug mode. A separate script, so that visitors do not load its texts. */

const KINDS = ['page', 'links', 'clicks', 'forms', 'leave', 'errors'];

/**
 * Checks the value of each option.
 *
 * @type {Record<string, (value: any) => unknown>}
 */
const OPTIONS = {
  endpoint: (value) => /^https?:\/\//.test(value),
  key: (value) => /^[a-z0-9_]+\.[^.]+\.[^.]+$/.test(value),
  auto: (value) => value === true || value.every((/** @type {string} */ kind) => KINDS.includes(kind)),
  pageTable: (value) => /^[a-z0-9_]{3,128}$/.test(value),
  eventTable: (value) => /^[a-z0-9_]{3,128}$/.test(value),
  id: (value) => ['storage', 'cookie', 'none'].includes(value),
  cookieName: (value) => typeof value == 'string',
  cookieDomain: (value) => location.hostname.endsWith(value.replace(/^\./, '')),
  consent: (value) => value == 'required',
  gpc: (value) => typeof value == 'boolean',
  dnt: (value) => typeof value == 'boolean',
  debug: (value) => typeof value == 'boolean',
};
const COMMANDS = ['init', 'page', 'track', 'set', 'identify', 'consent', 'reset', 'flush'];

/**
 * What a page's developer can do about a code, beyond the endpoint's own message.
 *
 * @type {Record<string, string>}
 */
const ADVICE = {
  invalid_key: 'Issue a key with "sluice keys issue", or check that it belongs to this endpoint.',
  unwanted_bot: 'This stack does not accept bots, and this browser says that it is one.',
  invalid_table: 'The table is the name passed to "track", or the option pageTable or eventTable.',
  200: 'This response is not from Sluice. Check the option endpoint.',
  404: 'There is no Sluice at this URL. Check the option endpoint.',
};

/** @type {Record<string, (...details: any[]) => void>} */
const PRINT = {
  init(options) {
    const given = options || {};
    for (const name of ['endpoint', 'key']) {
      if (!given[name]) console.error(`sluice: missing_option: init needs the option "${name}". Nothing is sent.`);
    }
    for (const name of Object.keys(given)) {
      if (!OPTIONS[name]) {
        console.warn(`sluice: unknown_option: there is no option "${name}". Options: ${Object.keys(OPTIONS).join(', ')}.`);
      } else if (given[name] && !attempt(OPTIONS[name], given[name])) {
        console.warn(`sluice: odd_option: the value of the option "${name}" looks wrong:`, given[name]);
      }
    }
    console.info('sluice: started with', given);
  },
  event(table, event) {
    if ('0' in event) {
      console.warn('sluice: odd_columns: each letter became a column. Columns are an object, such as {plan: "pro"}.');
    }
    console.info(`sluice: event for the table ${table}`, event);
  },
  not_recorded(table) {
    console.info(
      `sluice: not recorded: an event for the table ${table}. The visitor denied consent, or the browser sends Global Privacy Control or Do Not Track.`,
    );
  },
  unknown_command(name) {
    console.error(`sluice: unknown_command: there is no command "${name}". Commands: ${COMMANDS.join(', ')}.`);
  },
  consent(state) {
    if (['granted', 'denied'].includes(state)) console.info(`sluice: consent ${state}`);
    else console.error('sluice: odd_consent: the consent is "granted" or "denied". This value counts as "denied":', state);
  },
  too_large(table) {
    console.error(`sluice: too_large: an event for the table ${table} is over 256 KiB, and dropped.`);
  },
  no_answer(error) {
    console.warn(
      'sluice: no_answer: the endpoint is unreachable, or this page may not read its responses (parameter AllowedOrigins). The events are kept and sent again.',
      error,
    );
  },
  answer(status, refused, events, done) {
    const rejected = Array.isArray(refused) && refused;
    for (const { index, code, message } of rejected || []) {
      console.error(`sluice: ${code}: event rejected: ${message}. ${ADVICE[code] || ''}`, events[index]);
    }
    if (done && rejected) {
      console.info(`sluice: ${events.length - rejected.length} events delivered`);
      return;
    }
    const { code = status, message = '' } = refused || {};
    const fate = `${events.length} events are ${done ? 'dropped' : 'kept and sent again'}.`;
    console.error(`sluice: ${code}: ${[message && message + '.', ADVICE[code], fate].filter(Boolean).join(' ')}`, events);
  },
};

/**
 * Returns what a check returns, undefined if it throws.
 *
 * @template A
 * @param {(value: A) => unknown} check
 * @param {A} value
 */
const attempt = (check, value) => {
  try {
    return check(value);
  } catch (error) {}
};

/** @param {unknown[]} told */
const print = ([code, ...details]) => {
  attempt((given) => PRINT[String(code)](...given), details);
};

const log = window.sluiceLog || [];
log.forEach(print);
log.push = (...told) => told.map(print).length;

export {};
