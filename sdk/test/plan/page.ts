// The compiler accepts calls that fit what a site declares, and no others.

import { track } from '@sluice/browser';

track('purchases', { order_id: 'JP-1', amount: 5, currency: 'JPY', items: [1], td_extra: 1 });
track('purchases', { order_id: 'JP-1', amount: null });
track('pageviews');
// @ts-expect-error a required column is missing
track('purchases', { amount: 5 });
// @ts-expect-error all columns are missing
track('purchases');
// @ts-expect-error the type is wrong
track('purchases', { order_id: 'JP-1', amount: '5' });
// @ts-expect-error the value is not allowed
track('purchases', { order_id: 'JP-1', currency: 'EUR' });
// @ts-expect-error the column is not planned
track('purchases', { order_id: 'JP-1', coupon: 'x' });
// @ts-expect-error the table is not planned
track('purchase', { order_id: 'JP-1' });
