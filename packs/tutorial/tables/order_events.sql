-- Orders are created and paid; tx_id names the payment.
CREATE TABLE order_events (
  order_id BIGINT, event TEXT, tx_id TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '6 seconds'
) APPEND ONLY;
