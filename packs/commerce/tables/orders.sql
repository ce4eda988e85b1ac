-- Orders in their present state: send the whole order again when its status changes, the latest row counts.
--
-- Grain:       one row per order.
-- Event time:  created_at. No watermark: an order changes for days after it was placed, and every
--              change corrects the views.
-- Money:       amount is the sum of the order's lines in one currency; refunds are rows of their own table.
CREATE TABLE orders (
  order_id BIGINT PRIMARY KEY,
  user_id BIGINT NOT NULL,
  status TEXT NOT NULL,
  currency TEXT NOT NULL DEFAULT 'EUR',
  amount DECIMAL(18,2) NOT NULL,
  units BIGINT NOT NULL,
  created_at TIMESTAMPTZ NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  CHECK (amount >= 0),
  CHECK (units > 0),
  CHECK (status IN ('created', 'paid', 'shipped', 'cancelled', 'refunded'))
) ON CONFLICT OVERWRITE;
