// Tables and columns that a site declares.

import '@sluice/browser';

declare module '@sluice/browser' {
  interface Tables {
    purchases: {
      order_id: string;
      amount?: number | null;
      currency?: 'JPY' | 'USD' | null;
      items?: unknown[] | null;
      [column: `td_${string}`]: unknown;
    };
    pageviews: { title?: string | null };
  }
}
