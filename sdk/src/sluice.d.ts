/** What an event says: names and values. Values that are no text, number, boolean or null arrive as JSON text. */
export type Columns = Record<string, unknown>;

export type Automatic = 'page' | 'links' | 'clicks' | 'forms' | 'leave' | 'errors';

export interface Options {
  /** Where Sluice is, such as `https://collect.example.com`, without a slash at the end. */
  endpoint: string;
  /** The write key; it is public. */
  key: string;
  /** What is recorded without being asked for; `true` is everything. Default: nothing. */
  auto?: true | Automatic[];
  /** The table of page views. Default: `pageviews`. */
  pageTable?: string;
  /** One table for all events that have a name. Default: each name is a table; automatic events go to `events`. */
  eventTable?: string;
  /** Where the visitor's id is kept. Default: `storage`. */
  id?: 'storage' | 'cookie' | 'none';
  /** The cookie's name. Default: `_td`, which is td-js-sdk's. */
  cookieName?: string;
  /** The cookie's domain. Default: the page's host alone. */
  cookieDomain?: string;
  /** `required`: nothing is stored or sent before `consent('granted')`. */
  consent?: 'required';
  /** `false` overlooks Global Privacy Control. Default: browsers that send it are not measured. */
  gpc?: boolean;
  /** `true` respects Do Not Track in the same way. */
  dnt?: boolean;
}

export interface Commands {
  /** Starts. Once; what was recorded before waits for it. */
  init(options: Options): void;
  /** Records a view of the page. */
  page(columns?: Columns): void;
  /** Records an event. */
  track(name: string, columns?: Columns): void;
  /** Gives all later events of the page these columns. */
  set(columns: Columns): void;
  /** Gives all later events, of later pages too, the column `user_id`. */
  identify(user: string | number): void;
  /** Tells what the visitor wishes. */
  consent(state: 'granted' | 'denied'): void;
  /** Forgets the visitor's id, the user and the columns of `set`. */
  reset(): void;
  /** Sends now what was gathered. */
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
