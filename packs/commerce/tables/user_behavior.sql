-- What visitors do, one row per action. The five columns of the Taobao User Behavior data set,
-- and an optional event id.
--
-- Grain:       one action of one user on one item (pv = looked at, fav, cart, buy).
-- Event time:  ts; rows may arrive up to 5 seconds out of order. Older rows are late (see late_rows).
-- Retries:     rows with the same event_id within a day count once; rows without one are not compared.
CREATE TABLE user_behavior (
  user_id BIGINT NOT NULL,
  item_id BIGINT NOT NULL,
  category_id BIGINT,
  behavior TEXT NOT NULL,
  ts TIMESTAMPTZ NOT NULL,
  event_id TEXT,
  WATERMARK FOR ts AS ts - INTERVAL '5 seconds',
  CHECK (behavior IN ('pv', 'buy', 'cart', 'fav'))
) APPEND ONLY
WITH (dedup_key = 'event_id', dedup_window = '1 day');
