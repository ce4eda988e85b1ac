-- Attempts to pay.
--
-- Grain:       one row per attempt, final when it arrives.
-- Event time:  ts; rows may arrive up to 5 seconds out of order.
CREATE TABLE payments (
  payment_id BIGINT NOT NULL,
  order_id BIGINT NOT NULL,
  user_id BIGINT NOT NULL,
  method TEXT NOT NULL,
  outcome TEXT NOT NULL,
  amount DECIMAL(18,2) NOT NULL,
  ts TIMESTAMPTZ NOT NULL,
  event_id TEXT,
  WATERMARK FOR ts AS ts - INTERVAL '5 seconds',
  CHECK (outcome IN ('captured', 'failed'))
) APPEND ONLY
WITH (dedup_key = 'event_id', dedup_window = '1 day');
