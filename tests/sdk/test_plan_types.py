"""Tables and columns that a site declares, checked by the TypeScript compiler."""

import json
from pathlib import Path

import pytest

from tests.support.node import SDK, in_turn, needed, run

pytestmark = [needed, in_turn, pytest.mark.usefixtures("build")]

PLAN = """
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
"""
PAGE = """
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
"""


def test_the_compiler_checks_the_events_that_a_page_tracks(tmp_path: Path) -> None:
    """Calls that fit the declarations compile. Each mistake is an error."""
    (tmp_path / "plan.d.ts").write_text(PLAN)
    (tmp_path / "page.ts").write_text(PAGE)
    options = {
        "strict": True,
        "noEmit": True,
        "module": "ESNext",
        "moduleResolution": "bundler",
        "types": [],
        "lib": ["ES2019", "DOM"],
        "paths": {"@sluice/browser": [str(SDK / "src/sluice.d.ts")]},
    }
    config = {"compilerOptions": options, "files": ["plan.d.ts", "page.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))

    run("node_modules/.bin/tsc", "-p", str(tmp_path / "tsconfig.json"))
