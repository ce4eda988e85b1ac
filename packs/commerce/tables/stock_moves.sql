-- Every change of stock, as a ledger: the sum of delta per product is what is on hand.
--
-- Grain:       one row per movement (receive, sale, sale_cancel, return).
CREATE TABLE stock_moves (
  move_id BIGINT PRIMARY KEY,
  product_id BIGINT NOT NULL,
  delta BIGINT NOT NULL,
  reason TEXT NOT NULL,
  order_id BIGINT,
  ts TIMESTAMPTZ NOT NULL,
  CHECK (reason IN ('receive', 'sale', 'sale_cancel', 'return'))
) ON CONFLICT DO NOTHING;
