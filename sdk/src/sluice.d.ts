/** The columns of an event. Values other than strings, numbers, booleans and null become JSON text. */
export type Columns = Record<string, unknown>;

/**
 * The tables of your tracking plan and their columns. Fill it with `declare module '@sluice/browser' { interface Tables { … } }`; until
 * then any name and any columns are allowed.
 */
export interface Tables {}

export type TableName = [keyof Tables] extends [never] ? string : keyof Tables & string;
export type ColumnsOf<Name> = Name extends keyof Tables ? Tables[Name] : Columns;
type Given<Wanted> = Record<never, never> extends Wanted ? [columns?: Wanted] : [columns: Wanted];

export type Automatic = 'page' | 'links' | 'clicks' | 'forms' | 'leave' | 'errors';

export interface Options {
  /** Sluice's URL, such as `https://collect.example.com`, without a trailing slash. */
  endpoint: string;
  /** The write key, which is public. */
  key: string;
  /** Events to record automatically; `true` for all. Default: none. */
  auto?: true | Automatic[];
  /** Table for page views. Default: `pageviews`. */
  pageTable?: string;
  /** One table for all named events. Default: each name is a table, and automatic events go to `events`. */
  eventTable?: string;
  /** Where to keep the visitor id. Default: `storage`. */
  id?: 'storage' | 'cookie' | 'none';
  /** Name of the cookie. Default: `_td`, as in td-js-sdk. */
  cookieName?: string;
  /** Domain of the cookie. Default: the page's host only. */
  cookieDomain?: string;
  /** `required`: store and send nothing before `consent('granted')`. */
  consent?: 'required';
  /** `false` ignores Global Privacy Control. Default: visitors whose browser sends it are not recorded. */
  gpc?: boolean;
  /** `true` does the same for Do Not Track. Default: it is ignored. */
  dnt?: boolean;
  /** `true` prints to the console what happens to each event, and why any is rejected. Default: off. */
  debug?: boolean;
}

export interface Commands {
  /** Starts the SDK, once. Earlier commands are queued until then. */
  init(options: Options): void;
  /** Records a page view. */
  page(columns?: Columns): void;
  /** Records an event. */
  track<Name extends TableName>(name: Name, ...columns: Given<ColumnsOf<Name>>): void;
  /** Adds columns to all later events on this page. */
  set(columns: Columns): void;
  /** Adds the column `user_id` to all later events, including on later pages. An empty value changes nothing. */
  identify(user?: string | number | null): void;
  /** Sets the visitor's consent. */
  consent(state: 'granted' | 'denied'): void;
  /** Forgets the visitor id, the user and the columns of `set`. */
  reset(): void;
  /** Sends queued events now. */
  flush(): Promise<void> | undefined;
}

export const init: Commands['init'];
export const page: Commands['page'];
export const track: Commands['track'];
export const set: Commands['set'];
export const identify: Commands['identify'];
export const consent: Commands['consent'];
export const reset: Commands['reset'];
export const flush: Commands['flush'];
