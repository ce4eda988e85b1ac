-- What was ordered, as it was priced when it was ordered.
--
-- Grain:       one row per order and line number.
CREATE TABLE order_lines (
  order_id BIGINT NOT NULL,
  line_no BIGINT NOT NULL,
  item_id BIGINT NOT NULL,
  quantity BIGINT NOT NULL,
  unit_price DECIMAL(18,2) NOT NULL,
  amount DECIMAL(18,2) NOT NULL,
  PRIMARY KEY (order_id, line_no),
  CHECK (quantity > 0)
) ON CONFLICT DO NOTHING;
