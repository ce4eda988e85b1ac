-- What visitors do in a shop: the five columns of the Taobao User Behavior data set. Times may be 5 seconds out of order.
CREATE TABLE user_behavior (
  user_id BIGINT, item_id BIGINT, category_id BIGINT, behavior TEXT, ts TIMESTAMPTZ NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) APPEND ONLY;
