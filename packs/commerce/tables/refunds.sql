-- Money given back; amounts are positive.
--
-- Grain:       one row per refund.
CREATE TABLE refunds (
  refund_id BIGINT PRIMARY KEY,
  order_id BIGINT NOT NULL,
  reason TEXT NOT NULL,
  amount DECIMAL(18,2) NOT NULL,
  ts TIMESTAMPTZ NOT NULL,
  CHECK (amount > 0)
) ON CONFLICT DO NOTHING;
