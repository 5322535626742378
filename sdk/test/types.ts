// The package's types match its code, and accept the calls that the docs show.

import * as built from '../src/module.js';
import { init, page, track, set, identify, consent, reset, flush } from '@sluice/browser';

const promised: typeof import('@sluice/browser') = built;
void promised;

init({
  endpoint: 'https://collect.example.com',
  key: 'shop.k1.mac',
  auto: ['links', 'errors'],
  id: 'cookie',
});
page();
track('purchases', { sku: 'kettle-07', price: 7800, nested: { a: [1] } });
set({ plan: 'a' });
identify(7);
consent('granted');
reset();
flush()?.then(() => undefined);

// @ts-expect-error the key is missing
init({ endpoint: 'https://collect.example.com' });
// @ts-expect-error no such state
consent('perhaps');
// @ts-expect-error no such kind
init({ endpoint: '', key: '', auto: ['everything'] });
